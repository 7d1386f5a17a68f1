# SPDX-License-Identifier: AGPL-3.0-or-later
"""A Django site with a chat by WebSocket-over-HTTP, as the README of django-grip has it. Arguments: port, publish port."""

import sys
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from gripcontrol import WebSocketMessageFormat

sys.modules["site_with_chat"] = sys.modules[__name__]
PORT, PUBLISH_PORT = int(sys.argv[1]), int(sys.argv[2])

settings.configure(
    SECRET_KEY="a secret of at least thirty-two bytes",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="site_with_chat",
    MIDDLEWARE=["django_grip.GripMiddleware"],
    GRIP_URL=f"http://127.0.0.1:{PUBLISH_PORT}?key=changeme",
)

# It reads the settings when it is imported.
from django_grip import publish, websocket_only  # noqa: E402


@websocket_only
def chat(request):
    ws = request.wscontext
    if ws.is_opening():
        ws.accept()
        ws.subscribe("chat")
        ws.meta["name"] = request.GET.get("name", "")
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            ws.close()
            break
        if message == "who am i":
            ws.send(ws.meta["name"])
        else:
            publish("chat", WebSocketMessageFormat(message))
    return HttpResponse()


urlpatterns = [path("chat", chat)]

if __name__ == "__main__":
    make_server("127.0.0.1", PORT, get_wsgi_application()).serve_forever()
