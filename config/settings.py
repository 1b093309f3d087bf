"""Settings, read from the environment. Every variable is listed in the README's table.

Without any variable set this is the embedded run: SQLite and the in-memory channel layer.
"""

from pathlib import Path

from django.utils.csp import CSP

from config.environment import Environment
from config.secret_key import kept_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
read = Environment()
# Sentences about unreadable variables; ingest.checks turns each into an error.
ENVIRONMENT_PROBLEMS = read.problems

DATA_DIR = Path(read.text("DATA_DIR", default=str(BASE_DIR / "var"))).absolute()
DEBUG = read.flag("DEBUG", default=False)
REDIS_URL = read.url("REDIS_URL", schemes=("redis", "rediss", "unix"))
_database = read.database("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'sendwatch.sqlite3'}")
EMBEDDED = _database["ENGINE"] == "django.db.backends.sqlite3"

try:
    SECRET_KEY = read.text("SECRET_KEY") or kept_secret_key(DATA_DIR, allowed=EMBEDDED or DEBUG)
except OSError as error:
    SECRET_KEY = ""
    read.problems.append(f"DATA_DIR cannot be used: {error}")
ALLOWED_HOSTS = read.words("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
PUBLIC_URL = read.text("PUBLIC_URL").rstrip("/")
CSRF_TRUSTED_ORIGINS = read.words(
    "CSRF_TRUSTED_ORIGINS", default=[PUBLIC_URL] if PUBLIC_URL.startswith("http") else []
)
# --- Inside HighLevel ---------------------------------------------------------------------
HIGHLEVEL_SHARED_SECRET = read.text("HIGHLEVEL_SHARED_SECRET")
HIGHLEVEL_ORIGINS = [
    "https://app.gohighlevel.com",
    "https://*.gohighlevel.com",
    "https://*.leadconnectorhq.com",
]
FRAME_ANCESTORS = read.words("FRAME_ANCESTORS", default=[])

# --- Webhooks -----------------------------------------------------------------------------
# Empty key settings mean HighLevel's published keys (ingest.verify).
WEBHOOK_ED25519_KEYS = read.text("WEBHOOK_ED25519_KEYS")
# Accepted beside the above: the demo run passes its own key here.
WEBHOOK_EXTRA_ED25519_KEYS = read.text("WEBHOOK_EXTRA_ED25519_KEYS")
WEBHOOK_RSA_KEYS = read.text("WEBHOOK_RSA_KEYS")
WEBHOOK_ALLOW_RSA = read.flag("WEBHOOK_ALLOW_RSA", default=False)
WEBHOOK_APP_ID = read.text("WEBHOOK_APP_ID")
# Keep apart, instead of refusing, what other keys may verify one day: so many, so much.
WEBHOOK_QUARANTINE = read.flag("WEBHOOK_QUARANTINE", default=False)
WEBHOOK_QUARANTINE_MOST = 50_000  # webhooks
WEBHOOK_QUARANTINE_BYTES = 256 << 20
EVENT_RETENTION_DAYS = read.number("EVENT_RETENTION_DAYS", default=180)
PAYLOAD_RETENTION_DAYS = read.number("PAYLOAD_RETENTION_DAYS", default=30)

# --- Django -------------------------------------------------------------------------------
INSTALLED_APPS = [
    "daphne",
    "servestatic.runserver_nostatic",
    "dashboard.review.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "channels",
    "django_htmx",
    "ingest",
    "dashboard",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "dashboard.frame.middleware.FrameMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "dashboard.people.menu.KnownUserMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "dashboard.people.menu.menu",
            ],
        },
    }
]

# --- Database -----------------------------------------------------------------------------
if EMBEDDED:
    _database["OPTIONS"] = {
        # A write transaction that begins as a reader could not become a writer once another
        # has written; IMMEDIATE queues at once instead.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # FULL: in WAL mode NORMAL can lose a committed webhook when the power fails.
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
            "PRAGMA wal_autocheckpoint=8000; PRAGMA journal_size_limit=67108864; "
            "PRAGMA cache_size=-32000;"
        ),
    }
    # A file, as in production: in-memory databases lock whole tables between threads.
    _database["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
else:
    _database.setdefault("CONN_MAX_AGE", 60)
    _database["CONN_HEALTH_CHECKS"] = True
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "sendwatch"},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# --- Accounts -----------------------------------------------------------------------------
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "dashboard:overview"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
ACCOUNT_ADAPTER = "dashboard.people.accounts.Accounts"
ACCOUNT_FORMS = {"login": "dashboard.people.accounts.LoginForm"}
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False  # nobody gets mail because somebody typed an address
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_SESSION_REMEMBER = True  # for SESSION_DAYS, counted from logging in
ACCOUNT_RATE_LIMITS = {"frame": "60/m/ip"}  # beside allauth's own
MFA_ADAPTER = "dashboard.people.accounts.SecondFactors"
MFA_TOTP_ISSUER = "Sendwatch"
MFA_TOTP_TOLERANCE = 1  # of 30 seconds: clocks differ
MFA_RECOVERY_CODES_SHOW_ONCE = True
SESSION_DAYS = read.number("SESSION_DAYS", default=7)
SESSION_COOKIE_AGE = 86_400 * SESSION_DAYS
INVITATION_DAYS = read.number("INVITATION_DAYS", default=7)
# Attempts to log in are counted here, codes that were used kept: by all processes together.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "sendwatch",
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

# --- Mail ---------------------------------------------------------------------------------
# Without a server nothing is sent: staff get links to hand on, and pages say so.
_mailers = read.mailers("EMAIL_URL")
SENDS_MAIL = bool(_mailers)
MAILERS = _mailers or {"default": {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}}
DEFAULT_FROM_EMAIL = read.text("DEFAULT_FROM_EMAIL", default="sendwatch@localhost")

# --- Language, time, files ----------------------------------------------------------------
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"},
}

# --- Security -----------------------------------------------------------------------------
_https = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = read.flag("SECURE_COOKIES", default=_https)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
# Behind a proxy only: who asks our own port in the clear is on this machine.
SECURE_SSL_REDIRECT = read.flag(
    "SECURE_SSL_REDIRECT", default=_https and read.flag("BEHIND_PROXY", default=False)
)
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = read.number("SECURE_HSTS_SECONDS", default=31_536_000 if _https else 0)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if read.flag("BEHIND_PROXY", default=False):
    ALLAUTH_TRUSTED_PROXY_COUNT = 1
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_CSP = {
    "default-src": [CSP.SELF],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "object-src": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],  # but for dashboard.frame
}

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {
        "handlers": ["console"],
        "level": read.choice("LOG_LEVEL", default="INFO", choices=LOG_LEVELS),
    },
    "loggers": {"daphne": {"level": "WARNING"}, "django.channels.server": {"level": "WARNING"}},
}

# An index that holds columns beside its key: SQLite, which has none, makes it without them.
SILENCED_SYSTEM_CHECKS = [
    "models.W040",
    # What holds for the other names of a domain is for its owner to say, not for one of them.
    "security.W005",
    "security.W021",
    "mail.E001",  # without a mail server links are handed on: see Mail, above
]
