"""One view, as an ordinary Django project would have it: verify, write, answer."""

import time

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from bench.plain.write import Busy, write
from ingest.edge import verifier
from ingest.record import item_from_body


@csrf_exempt
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    """Take one webhook; 200 once it is committed."""
    received_at = time.time_ns() // 1000
    headers = {name.lower(): value for name, value in request.headers.items()}
    if not verifier().verify(headers, request.body).ok:
        return JsonResponse({"status": "unverified"}, status=401)
    item = item_from_body(request.body, received_at=received_at)
    try:
        return JsonResponse({"status": write(item, now=received_at)})
    except Busy:
        return JsonResponse({"status": "busy"}, status=429, headers={"Retry-After": "5"})


urlpatterns = [path("webhooks/lc-email/", webhook)]
