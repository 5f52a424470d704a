// A web server whose every answer is made anew: for `cargo xtask bench modes`. Its argument
// is the port.
'use strict';
const http = require('http');

const NUMBERS = 200;

function page(number) {
    const rows = [];
    for (let row = 0; row < NUMBERS; row++) rows.push({ number: number + row, square: row * row });
    return Buffer.from(JSON.stringify({ rows }));
}

let number = 0;
http.createServer((request, response) => {
    const body = page(++number);
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length });
    response.end(body);
}).listen(Number(process.argv[2]), '127.0.0.1');
