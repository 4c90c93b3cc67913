// A backend of HTTP/2 without TLS, by Node. It prints its port.
"use strict";
const http2 = require("http2");

const server = http2.createServer({ settings: { enableConnectProtocol: true } });
server.on("stream", (stream, head) => {
  stream.on("error", () => {});
  if (head[":method"] === "CONNECT") {
    // A WebSocket (RFC 8441): what comes goes back.
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
    return;
  }
  switch (head[":path"]) {
    case "/trailers":
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "1" }));
      stream.end("body");
      return;
    case "/hints":
      stream.additionalHeaders({ ":status": 103, link: "</style.css>; rel=preload" });
      stream.respond({ ":status": 200 });
      stream.end("body");
      return;
    case "/cut":
      stream.respond({ ":status": 200 });
      stream.write("half");
      setTimeout(() => stream.destroy(new Error("cut")), 50);
      return;
    case "/refused":
      stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
      return;
    default:
      break;
  }
  const size = /^\/size\/(\d+)$/.exec(head[":path"]);
  stream.respond({ ":status": 200, "x-version": "2" });
  if (size) stream.end(Buffer.alloc(Number(size[1]), "x"));
  else stream.pipe(stream);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
