// A client of HTTP/2, by Node: client.js URL, whose backend is server.js. Prints "good", or throws.
"use strict";
const assert = require("assert");
const http2 = require("http2");

const session = http2.connect(process.argv[2], { rejectUnauthorized: false });
session.on("error", (error) => { throw error; });

function ask(head, body) {
  return new Promise((done, fail) => {
    const stream = session.request(head, { endStream: body === undefined });
    const answer = { interim: [], body: [] };
    stream.on("headers", (fields) => answer.interim.push(fields[":status"]));
    stream.on("response", (fields) => { answer.status = fields[":status"]; });
    stream.on("trailers", (fields) => { answer.trailers = fields; });
    stream.on("data", (piece) => answer.body.push(piece));
    stream.on("error", fail);
    stream.on("end", () => done({ ...answer, body: Buffer.concat(answer.body) }));
    if (body !== undefined) stream.end(body);
  });
}

async function main() {
  const large = Buffer.from(Array.from({ length: 3 << 20 }, (_, at) => (at * 7) & 255));
  const echoed = await ask({ ":method": "POST", ":path": "/echo" }, large);
  assert.ok(echoed.body.equals(large), "3 MiB there and back");
  const many = Array.from({ length: 200 }, (_, at) => ask({ ":path": `/size/${at * 100}` }));
  for (const [at, answer] of (await Promise.all(many)).entries()) {
    assert.strictEqual(answer.body.length, at * 100);
  }
  const trailers = await ask({ ":path": "/trailers", te: "trailers" });
  assert.strictEqual(trailers.trailers["x-sum"], "1");
  assert.deepStrictEqual((await ask({ ":path": "/hints" })).interim, [103]);
  await assert.rejects(ask({ ":path": "/cut" }), /INTERNAL_ERROR/);
  // What it has sent to be cancelled harms nobody.
  const cancelled = session.request({ ":path": "/size/5000000" });
  cancelled.on("error", () => {});
  cancelled.once("data", () => cancelled.close(http2.constants.NGHTTP2_CANCEL));
  await new Promise((done) => cancelled.on("close", done));
  // A WebSocket, once the settings have come that offer it.
  assert.ok(session.remoteSettings.enableConnectProtocol);
  const head = { ":method": "CONNECT", ":protocol": "websocket", ":path": "/chat" };
  const tunnel = session.request(head, { endStream: false });
  tunnel.on("response", (fields) => assert.strictEqual(fields[":status"], 200));
  let came = Buffer.alloc(0);
  tunnel.on("data", (piece) => { came = Buffer.concat([came, piece]); });
  tunnel.write(large.subarray(0, 100000));
  tunnel.end(large.subarray(100000, 300000));
  await new Promise((done) => tunnel.on("end", done));
  assert.ok(came.equals(large.subarray(0, 300000)), "a tunnel, byte for byte");
  session.close();
  console.log("good");
}

main().catch((error) => { console.error(error); process.exit(1); });
