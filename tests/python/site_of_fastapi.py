# SPDX-License-Identifier: AGPL-3.0-or-later
"""A FastAPI site with gripcontrol, by instructs in JSON and by WebSocket-over-HTTP. Arguments: port, publish port."""

import sys
from struct import pack

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from gripcontrol import (
    Channel,
    GripPubControl,
    HttpResponseFormat,
    HttpStreamFormat,
    WebSocketContext,
    WebSocketEvent,
    WebSocketMessageFormat,
    create_hold_response,
    create_hold_stream,
    decode_websocket_events,
    encode_websocket_events,
    validate_sig,
)
from gripcontrol import Response as HeldResponse
from pubcontrol import Item

PORT, PUBLISH_PORT = int(sys.argv[1]), int(sys.argv[2])
control = GripPubControl({"control_uri": f"http://127.0.0.1:{PUBLISH_PORT}"})
app = FastAPI()


@app.middleware("http")
async def only_through_the_suite(request: Request, call_next):
    if not validate_sig(request.headers.get("grip-sig", ""), "changeme"):
        return Response("not signed", status_code=403)
    return await call_next(request)


def instruct(text):
    return Response(text, media_type="application/grip-instruct")


@app.get("/stream/{channel}")
async def stream(channel: str):
    head = HeldResponse(code=200, headers={"Content-Type": "application/octet-stream"}, body=b"\xff open\n")
    return instruct(create_hold_stream(channel, head))


@app.get("/poll/{channel}")
async def poll(channel: str, timeout: int = 25):
    nothing = HeldResponse(code=204, reason="Nothing New", headers={"X-Channel": channel})
    return instruct(create_hold_response(Channel(channel), nothing, timeout))


@app.post("/say/{channel}")
def say(channel: str, text: str):
    answer = HttpResponseFormat(code=201, reason="Said", headers={"X-Said": "yes"}, body=text)
    formats = [HttpStreamFormat(f"{text}\n"), answer, WebSocketMessageFormat(text)]
    control.publish(channel, Item(formats))
    return {"said": text}


@app.post("/socket/{channel}")
async def socket(channel: str, request: Request):
    if request.headers["content-type"] != "application/websocket-events":
        raise HTTPException(400)
    meta = {name[5:]: value for name, value in request.headers.items() if name.startswith("meta-")}
    ws = WebSocketContext(request.headers["connection-id"], meta, decode_websocket_events(await request.body()), "")
    if ws.is_opening():
        ws.accept()
        ws.subscribe(channel)
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            ws.close()
        elif message == "leave":
            ws.unsubscribe(channel)
            ws.send("left")
        else:
            ws.send(f"{message} to you")
    events, headers = ws.out_events, {}
    if ws.accepted:
        events = [WebSocketEvent("OPEN"), *events]
        headers["Sec-WebSocket-Extensions"] = "grip"
    if ws.closed:
        events = [*events, WebSocketEvent("CLOSE", pack(">H", ws.out_close_code))]
    return Response(encode_websocket_events(events), media_type="application/websocket-events", headers=headers)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
