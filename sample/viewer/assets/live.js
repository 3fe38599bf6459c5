"use strict";

const POLL = 300; // milliseconds
if (window.matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
const viewer = new Viewer();

async function showProgress() {
  const { done, total } = await (await fetch("progress")).json();
  byId("progress").max = total || 1;
  byId("progress").value = done;
}

/** Saves a motion as a file, or says why it cannot be had. */
async function save(run, format) {
  const answer = await fetch(`export/${run}/${format}`);
  if (!answer.ok) {
    byId("told").textContent = (await answer.json()).error;
    return;
  }
  const name = decodeURIComponent(answer.headers.get("Content-Disposition").split("''")[1]);
  const link = make("a", "", { href: URL.createObjectURL(await answer.blob()), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

function offerDownloads(runs) {
  const formats = byId("downloads").dataset.formats.split(" ");
  byId("downloads").replaceChildren(...runs.map((name, run) => {
    const item = make("li", `${name} `);
    item.append(...formats.map((format) => make("button", format, { type: "button", onclick: () => save(run, format) })));
    return item;
  }));
}

byId("wish").onsubmit = async (event) => {
  event.preventDefault();
  const button = byId("wish").querySelector("[type=submit]");
  const polling = setInterval(showProgress, POLL);
  [button.disabled, byId("progress").hidden, byId("told").textContent] = [true, false, ""];
  try {
    const body = JSON.stringify(Object.fromEntries(new FormData(byId("wish"))));
    const answer = await fetch("motions", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const { error, page, motions } = await answer.json();
    if (error) throw new Error(error);
    viewer.show(page, motions);
    offerDownloads(page.runs);
  } catch (error) {
    byId("told").textContent = error.message;
  } finally {
    clearInterval(polling);
    [button.disabled, byId("progress").hidden] = [false, true];
  }
};
