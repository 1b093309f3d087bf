"""Pages, and the JSON API beside them."""

from django.urls import path

from dashboard import api, api_quality, api_rates, api_reasons, views

app_name = "dashboard"

urlpatterns = [
    path("", views.overview, name="overview"),
    path("locations/<str:ref>/", views.location, name="location"),
    path("campaigns/<path:key>/", views.campaign, name="campaign"),
    path("api/rates/", api_rates.rates, name="api-rates"),
    path("api/changes/", api_rates.changes, name="api-changes"),
    path("api/quality/", api_quality.data_quality, name="api-quality"),
    path("api/events/", api.events, name="api-events"),
    path("api/deliveries/", api.deliveries, name="api-deliveries"),
    path("api/deliveries/<int:pk>/", api.delivery, name="api-delivery"),
    path("api/reasons/", api_reasons.reasons, name="api-reasons"),
    path("api/reasons/<int:pk>/", api_reasons.reason, name="api-reason"),
]
