// Before the first paint: the theme that was chosen earlier.
try {
  const saved = localStorage.getItem("nls-tune-theme");
  if (saved === "light" || saved === "dark") document.documentElement.dataset.theme = saved;
} catch {
  // Some browsers keep nothing for files; the system's theme is used.
}
