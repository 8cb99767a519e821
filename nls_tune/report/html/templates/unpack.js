"use strict";
// Raw deflate (RFC 1951). Browsers have it too, but only so that a page that is printed at once does not wait for it.
const unpack = (() => {
  const MAX_BITS = 15;

  // For every MAX_BITS bits that may come next: which symbol they begin with, and how many of them are it.
  function codeTable(lengths) {
    const counts = new Uint16Array(MAX_BITS + 1);
    for (const length of lengths) counts[length] += 1;
    counts[0] = 0;
    const next = new Uint16Array(MAX_BITS + 2);
    for (let bits = 1; bits <= MAX_BITS; bits += 1) next[bits + 1] = (next[bits] + counts[bits]) << 1;
    const table = new Uint16Array(1 << MAX_BITS);
    lengths.forEach((length, symbol) => {
      if (!length) return;
      let code = next[length];
      next[length] += 1;
      let reversed = 0;
      for (let bit = 0; bit < length; bit += 1, code >>= 1) reversed = (reversed << 1) | (code & 1);
      for (let i = reversed; i < table.length; i += 1 << length) table[i] = (symbol << 4) | length;
    });
    return table;
  }

  // From which number each symbol counts on, and how many bits say how far.
  function ranges(first, symbols, same) {
    const bases = [];
    const extras = [];
    for (let i = 0, base = first; i < symbols; i += 1) {
      extras.push(i < 2 * same ? 0 : Math.floor(i / same) - 1);
      bases.push(base);
      base += 1 << extras[i];
    }
    return [bases, extras];
  }
  const [lengthBases, lengthExtras] = ranges(3, 29, 4);
  lengthBases[28] = 258;
  lengthExtras[28] = 0;
  const [distanceBases, distanceExtras] = ranges(1, 30, 2);
  const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
  const FIXED = [
    Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8)),
    new Array(30).fill(5),
  ];

  function inflate(input, size) {
    const output = new Uint8Array(size);
    let at = 0;
    let end = 0;
    let buffer = 0;
    let held = 0;

    function need(count) {
      for (; held < count; held += 8) buffer |= input[at++] << held; // past the end come zeros
    }
    function bits(count) {
      need(count);
      const value = buffer & ((1 << count) - 1);
      buffer >>>= count;
      held -= count;
      return value;
    }
    function symbol(table) {
      need(MAX_BITS);
      const entry = table[buffer & ((1 << MAX_BITS) - 1)];
      buffer >>>= entry & 15;
      held -= entry & 15;
      return entry >> 4;
    }
    function stored() {
      at -= held >> 3;
      buffer = held = 0;
      const length = input[at] | (input[at + 1] << 8);
      output.set(input.subarray(at + 4, at + 4 + length), end);
      at += 4 + length;
      end += length;
    }
    function codeLengths() {
      const literals = bits(5) + 257;
      const distances = bits(5) + 1;
      const count = bits(4) + 4;
      const ofLengths = new Array(19).fill(0);
      for (let i = 0; i < count; i += 1) ofLengths[ORDER[i]] = bits(3);
      const table = codeTable(ofLengths);
      const lengths = [];
      while (lengths.length < literals + distances) {
        const found = symbol(table);
        if (found < 16) lengths.push(found);
        else {
          const repeated = found === 16 ? lengths[lengths.length - 1] : 0;
          let times = found === 16 ? 3 + bits(2) : found === 17 ? 3 + bits(3) : 11 + bits(7);
          for (; times; times -= 1) lengths.push(repeated);
        }
      }
      return [lengths.slice(0, literals), lengths.slice(literals)];
    }
    function block([ofLiterals, ofDistances]) {
      const literals = codeTable(ofLiterals);
      const distances = codeTable(ofDistances);
      for (let found = symbol(literals); found !== 256; found = symbol(literals)) {
        if (found < 256) output[end++] = found;
        else {
          const length = lengthBases[found - 257] + bits(lengthExtras[found - 257]);
          const back = symbol(distances);
          const distance = distanceBases[back] + bits(distanceExtras[back]);
          for (const stop = end + length; end < stop; end += 1) output[end] = output[end - distance];
        }
      }
    }

    for (let last = 0; !last; ) {
      last = bits(1);
      const kind = bits(2);
      if (kind === 0) stored();
      else block(kind === 1 ? FIXED : codeLengths());
    }
    return output;
  }

  // The text that a script element holds, which says how long it is.
  return (id) => {
    const element = document.getElementById(id);
    const packed = atob(element.textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
    return new TextDecoder().decode(inflate(bytes, Number(element.dataset.bytes)));
  };
})();
