// What the page does by itself: it tells the kernel that somebody sees it, and says when the kernel is gone.
// Runs as the handler of an image that can't be loaded, with the image as `mark`.
const page = (window.smellkitPage ||= Math.random().toString(36).slice(2)); // another one after each loading
let turn = 0, away = 0, seen = "", since = Date.now();
const tick = () => {
  const root = mark.closest(".smell"); // not there yet, or on its way from one place of the page to another
  away = root && root.isConnected ? 0 : away + 1;
  if (away > 2400) clearInterval(timer);
  if (!root) return;
  for (const field of root.querySelectorAll("select, input")) // keys in a list are for the list, not for the notebook
    field.setAttribute("data-lm-suppress-shortcuts", "true");
  const field = root.querySelector(".smell-beat input");
  if (field && turn++ % 4 === 0 && away < 20 && document.visibilityState === "visible") {
    field.value = `${page} ${Date.now()}`;
    field.dispatchEvent(new Event("change", {bubbles: true}));
  }
  const pulse = root.querySelector(".smell-pulse");
  if (pulse && pulse.dataset.count !== seen) { seen = pulse.dataset.count; since = Date.now(); }
  root.classList.toggle("smell-dead", Boolean(pulse && pulse.dataset.live && Date.now() - since > 5000));
};
const timer = setInterval(tick, 250);
tick();
