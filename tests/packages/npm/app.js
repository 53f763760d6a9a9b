const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");
const { execFileSync } = require("node:child_process");

if (isMainThread) {
  const shout = require("shout");
  const workers = [0, 1, 2, 3].map((n) => new Promise((done) => new Worker(__filename, { workerData: n }).on("message", done)));
  const said = execFileSync("node_modules/.bin/greet", ["world"], { encoding: "utf8" }).trim();
  Promise.all(workers).then((results) => console.log(`${shout(said)} 4 workers: ${results.join(" ")}`));
} else {
  parentPort.postMessage(workerData * workerData);
}
