
"use strict";
(() => {
  document.documentElement.classList.add("script");
  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // The line between original and compressed: a range input for keys and screen readers, the pointer on the whole picture.
  for (const stage of document.querySelectorAll(".stage")) {
    const input = element("input", { type: "range", min: 0, max: 100, value: 50 });
    input.setAttribute("aria-label", "Where the original ends and the compressed generator's picture begins");
    const move = (at) => {
      input.value = at;
      stage.style.setProperty("--at", `${at}%`);
      stage.classList.toggle("far-left", at < 25);
      stage.classList.toggle("far-right", at > 70);
      input.setAttribute("aria-valuetext", `${Math.round(at)} % original`);
    };
    const follow = (event) => {
      const box = stage.getBoundingClientRect();
      move(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
    };
    input.addEventListener("input", () => move(Number(input.value)));
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
      input.focus({ preventScroll: true });
      follow(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (stage.hasPointerCapture(event.pointerId)) follow(event);
    });
    stage.append(input, element("div", { className: "line" }));
    move(50);
  }

  // The chooser: one sample at a time. Its thumbnails are the pictures that are there.
  const samples = [...document.querySelectorAll(".sample")];
  const show = (chosen) => {
    samples.forEach((sample, index) => sample.classList.toggle("shown", index === chosen));
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === chosen)));
  };
  const buttons = samples.map((sample, index) => {
    const thumbnail = element("img", { src: sample.querySelector(".compressed img").src, alt: "" });
    const button = element("button", { type: "button", title: sample.dataset.name }, thumbnail);
    button.setAttribute("aria-label", `Show ${sample.dataset.name}`);
    button.addEventListener("click", () => show(index));
    return button;
  });
  if (samples.length > 1) {
    const chooser = element("div", { className: "chooser" }, ...buttons);
    chooser.setAttribute("role", "group");
    chooser.setAttribute("aria-label", "Pictures");
    document.getElementById("samples").prepend(chooser);
  }
  show(0);

  const copy = document.getElementById("copy");
  if (copy) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const command = document.getElementById("command");
      let done = true;
      try {
        await navigator.clipboard.writeText(command.textContent);
      } catch {
        // not allowed here: select it, so that the user's own copy key takes it
        getSelection().selectAllChildren(command);
        done = document.execCommand("copy");
      }
      copy.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { copy.textContent = "Copy"; }, 1600);
    });
  }

  // On paper everything is open, and afterwards as it was.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
})();
