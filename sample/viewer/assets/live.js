"use strict";

const POLL = 300; // milliseconds
if (window.matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
const viewer = new Viewer();

async function showProgress() {
  const { done, total } = await (await fetch("progress")).json();
  byId("progress").max = total || 1;
  byId("progress").value = done;
}

byId("wish").onsubmit = async (event) => {
  event.preventDefault();
  const button = byId("wish").querySelector("button");
  const polling = setInterval(showProgress, POLL);
  [button.disabled, byId("progress").hidden, byId("told").textContent] = [true, false, ""];
  try {
    const body = JSON.stringify(Object.fromEntries(new FormData(byId("wish"))));
    const answer = await fetch("motions", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const { error, page, motions } = await answer.json();
    if (error) throw new Error(error);
    viewer.show(page, motions);
  } catch (error) {
    byId("told").textContent = error.message;
  } finally {
    clearInterval(polling);
    [button.disabled, byId("progress").hidden] = [false, true];
  }
};
