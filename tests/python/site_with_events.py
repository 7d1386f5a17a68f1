# SPDX-License-Identifier: AGPL-3.0-or-later
"""A Django site with django-eventstream as its README has it, behind the suite. Arguments: port, publish port, database.

/events/?channel=NAME        the library's own view; X-User names the user
/send?channel=&data=&skip=   send_event, as any code of the site may call it
"""

import os
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

sys.modules["site_with_events"] = sys.modules[__name__]
PORT, PUBLISH_PORT, DATABASE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


class UserByHeader:
    """In the place of a login."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        from django.contrib.auth.models import AnonymousUser, User

        name = request.headers.get("X-User")
        request.user = User.objects.get(username=name) if name else AnonymousUser()
        return self.get_response(request)


class Channels:
    """Made at the first request, because models can not be imported before."""

    def __new__(cls):
        from django_eventstream.channelmanager import DefaultChannelManager

        class Manager(DefaultChannelManager):
            def can_read_channel(self, user, channel):
                return not channel.startswith("private-") or (user and channel == f"private-{user.username}")

        return Manager()


settings.configure(
    SECRET_KEY="a secret of at least thirty-two bytes",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="site_with_events",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_eventstream"],
    MIDDLEWARE=["django_grip.GripMiddleware", "site_with_events.UserByHeader"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE, "OPTIONS": {"timeout": 20}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    GRIP_URL=f"http://127.0.0.1:{PUBLISH_PORT}?key=changeme",
    EVENTSTREAM_STORAGE_CLASS="django_eventstream.storage.DjangoModelStorage",
    EVENTSTREAM_CHANNELMANAGER_CLASS="site_with_events.Channels",
)
django.setup()

from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django_eventstream import send_event  # noqa: E402


def send(request):
    skip = [user for user in request.GET.get("skip", "").split(",") if user]
    from django.contrib.auth.models import User

    ids = [str(User.objects.get(username=name).id) for name in skip]
    try:
        send_event(request.GET["channel"], "message", int(request.GET["data"]), skip_user_ids=ids)
    except OSError:
        # The handler is being restarted. The event is stored, which is what the library is reliable by.
        return HttpResponse("stored\n")
    return HttpResponse("sent\n")


def held(request):
    """A long-poll or stream by gripcontrol, without django-eventstream."""
    import gripcontrol

    response = HttpResponse("hello\n", content_type="text/plain")
    response["Grip-Hold"] = request.GET["mode"]
    response["Grip-Channel"] = gripcontrol.create_grip_channel_header(gripcontrol.Channel(request.GET["channel"]))
    return response


urlpatterns = [path("events/", include("django_eventstream.urls")), path("send", send), path("held", held)]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    for name in ("alice", "bob"):
        User.objects.get_or_create(username=name)
    make_server("127.0.0.1", PORT, get_wsgi_application(), Server, Quiet).serve_forever()
