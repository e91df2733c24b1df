// The server of `ws` (npm). NODE_PATH says where that is installed; the paths it serves are told in ../conftest.py.
"use strict";

const fs = require("fs");
const http = require("http");
const https = require("https");
const { WebSocketServer } = require("ws");

const [certificate, key] = process.argv.slice(2);
const SUBPROTOCOLS = ["feed.v2", "feed.v1"];
const MAX_SIZE = 64 << 20;

const ended = new Map(); // id of a connection: how it ended, as JSON
const waiting = new Map(); // id of a connection: who asks for that

function note(id, code, reason) {
    ended.set(id, JSON.stringify({ code, reason: reason.toString() }));
    waiting.get(id)?.(ended.get(id));
}

function sendInPieces(socket, data, binary, size) {
    for (let start = 0; start === 0 || start < data.length; start += size) {
        socket.send(data.subarray(start, start + size), { binary, fin: start + size >= data.length });
    }
}

function handle(socket, request) {
    const url = new URL(request.url, "http://localhost");
    const asked = (name) => url.searchParams.get(name);
    socket.on("message", (data, binary) => {
        if (url.pathname === "/fragments") {
            sendInPieces(socket, data, binary, Number(asked("size")));
        } else {
            socket.send(data, { binary });
        }
    });
    socket.on("pong", (payload) => socket.send("pong " + payload));
    socket.on("error", (error) => console.error(String(error)));
    socket.on("close", (code, reason) => asked("id") && url.pathname !== "/log" && note(asked("id"), code, reason));
    if (url.pathname === "/close") {
        socket.close(Number(asked("code")), asked("reason") ?? "");
    } else if (url.pathname === "/ping") {
        socket.ping(asked("payload"));
    } else if (url.pathname === "/log") {
        const id = asked("id");
        ended.has(id) ? socket.send(ended.get(id)) : waiting.set(id, (text) => socket.send(text));
    }
}

function pad(headers, request) {
    const url = new URL(request.url, "http://localhost");
    if (url.pathname === "/head") {
        headers.push("X-Padding: " + "x".repeat(Number(url.searchParams.get("bytes"))));
    }
}

function listen(server) {
    const sockets = new WebSocketServer({
        server,
        maxPayload: MAX_SIZE,
        perMessageDeflate: { threshold: 0 },
        handleProtocols: (offered) => SUBPROTOCOLS.find((one) => offered.has(one)) ?? false,
    });
    sockets.on("connection", handle);
    sockets.on("headers", pad);
    return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));
}

async function main() {
    const plain = await listen(http.createServer());
    const tls = await listen(https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }));
    process.stdout.write(JSON.stringify({ plain, tls }) + "\n");
    process.stdin.on("end", () => process.exit(0)).resume();
}

main();
