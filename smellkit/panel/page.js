// What the page does by itself: it tells the kernel that somebody sees it, and says when the kernel is gone.
// Runs as the handler of an image that can't be loaded, with the image as `mark`.
const begin = (tries) => {
  const root = mark.closest(".smell");
  if (!root) { if (tries) setTimeout(() => begin(tries - 1), 100); return; }
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // keys in a list are for the list, not for the notebook
  let seen = "", since = Date.now();
  const tick = () => {
    if (!root.isConnected) return clearInterval(timer);
    const field = root.querySelector(".smell-beat input");
    if (field && document.visibilityState === "visible") {
      field.value = String(Date.now());
      field.dispatchEvent(new Event("change", {bubbles: true}));
    }
    const pulse = root.querySelector(".smell-pulse");
    if (pulse && pulse.dataset.count !== seen) { seen = pulse.dataset.count; since = Date.now(); }
    root.classList.toggle("smell-dead", Boolean(pulse && pulse.dataset.live && Date.now() - since > 5000));
  };
  const timer = setInterval(tick, 1000);
  tick();
};
begin(50);
