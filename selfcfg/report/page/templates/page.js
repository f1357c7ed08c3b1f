"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const switcher = document.getElementById("theme");
  const preferred = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : preferred.matches);
  const told = () => switcher.setAttribute("aria-pressed", String(isDark()));
  switcher.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    told();
  });
  preferred.addEventListener("change", told);
  told();

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));

  document.querySelectorAll(".viewer").forEach((viewer) => {
    const data = JSON.parse(document.getElementById(viewer.dataset.viewer).textContent);
    const stage = viewer.querySelector(".stage");
    const drawing = stage.querySelector("svg");
    const picture = drawing.querySelector("image");
    const groups = [...drawing.querySelectorAll("g")];
    const slider = viewer.querySelector("input[type=range]");
    const channel = viewer.querySelector("select");
    const output = viewer.querySelector("output");
    const about = drawing.getAttribute("aria-label");
    let place = data.central;

    const show = (wanted) => {
      place = Math.min(Math.max(wanted, 0), data.frames.length - 1);
      const frame = data.frames[place];
      if (picture) {
        picture.setAttribute("href", frame.p[channel ? Number(channel.value) : 0]);
      }
      groups.forEach((group, map) => {
        [...group.children].forEach((path, number) => path.setAttribute("d", frame.o[map][number]));
      });
      if (data.plane) {
        const where = `${data.plane} slice ${frame.n} of ${data.total}`;
        output.textContent = where;
        drawing.setAttribute("aria-label", about.replace(/\S+ slice \d+ of \d+/, where));
        if (slider) {
          slider.value = String(place);
          slider.setAttribute("aria-valuetext", where);
        }
      }
    };

    viewer.querySelectorAll("input[type=checkbox]").forEach((box) => {
      if (box.dataset.shows === "focus") {
        box.checked = false;
        box.addEventListener("change", () => {
          drawing.setAttribute("viewBox", (box.checked ? data.focus : data.whole).join(" "));
        });
        return;
      }
      const target = box.dataset.shows === "image" ? picture : groups[Number(box.dataset.shows)];
      box.checked = true;
      box.addEventListener("change", () => target.setAttribute("visibility", box.checked ? "visible" : "hidden"));
    });
    if (channel) {
      channel.addEventListener("change", () => show(place));
    }
    if (!slider) {
      return;
    }
    slider.addEventListener("input", () => show(Number(slider.value)));
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    stage.addEventListener("keydown", (event) => {
      const ends = { Home: 0, End: data.frames.length - 1 };
      if (event.key in steps) {
        show(place + steps[event.key]);
      } else if (event.key in ends) {
        show(ends[event.key]);
      } else {
        return;
      }
      event.preventDefault();
    });
    stage.addEventListener("wheel", (event) => {
      const before = place;
      show(place - Math.sign(event.deltaY));
      if (place !== before) {
        event.preventDefault();
      }
    }, { passive: false });
    show(place);
  });

  document.querySelectorAll(".plotted").forEach((figure) => {
    const marks = [...figure.querySelectorAll(".mark")];
    const said = figure.querySelector(".told");
    if (!said || !marks.length) {
      return;
    }
    let current = 0;
    marks.forEach((mark, place) => {
      mark.setAttribute("tabindex", place ? "-1" : "0");
      const name = () => { said.textContent = mark.querySelector("title").textContent; };
      mark.addEventListener("pointerenter", name);
      mark.addEventListener("focus", () => {
        current = place;
        name();
      });
      mark.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) {
          return;
        }
        event.preventDefault();
        marks[current].setAttribute("tabindex", "-1");
        current = (current + step + marks.length) % marks.length;
        marks[current].setAttribute("tabindex", "0");
        marks[current].focus();
      });
    });
  });
})();
