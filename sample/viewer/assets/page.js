"use strict";

if (window.matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
const viewer = new Viewer();
const page = JSON.parse(byId("page-data").textContent);
page.pages.forEach((file, i) => {
  byId("pages").append(i === page.number ? make("b", `page ${i + 1}`) : make("a", `${i + 1}`, { href: file }));
});
viewer.show(page, byId("motion-data").textContent);
