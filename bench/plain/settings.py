"""Settings of the plain peer: the same database and pragmas, no Channels, two middlewares."""

from config.settings import *  # noqa: F403
from config.settings import DATABASES

# What people log in with insists on a middleware of its own.
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "ingest"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "bench.plain.views"
WSGI_APPLICATION = "bench.plain.wsgi.application"
# A connection a thread for as long as the thread lives: the cheapest that Django offers.
DATABASES["default"] |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
