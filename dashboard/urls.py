"""Pages, and the JSON API beside them."""

from django.urls import path

from dashboard import (
    api,
    api_quality,
    api_rates,
    api_reasons,
    client_links,
    delivery_views,
    editing,
    filter_bar,
    muting,
    saved_views,
    suggest,
    views,
)

app_name = "dashboard"

urlpatterns = [
    path("", views.overview, name="overview"),
    path("locations/<str:ref>/", views.location, name="location"),
    path("locations/<str:ref>/name/", editing.name_location, name="name-location"),
    path("locations/<str:ref>/masking/", editing.mask_location, name="mask-location"),
    path("locations/<str:ref>/suspensions/", editing.suspend, name="suspend"),
    path("locations/<str:ref>/suspensions/<int:pk>/", editing.lift, name="lift"),
    path("locations/<str:ref>/links/", client_links.make, name="make-link"),
    path("locations/<str:ref>/links/<int:pk>/", client_links.revoke, name="revoke-link"),
    path("c/<str:token>/", client_links.shared, name="shared"),
    path("campaigns/<path:key>/name/", editing.name_campaign, name="name-campaign"),
    path("reasons/", views.reasons, name="reasons"),
    path("reasons/<int:pk>/", views.reason, name="reason"),
    path("status/", views.status, name="status"),
    path("status/test-event/", views.test_event, name="test-event"),
    path("names/", editing.names, name="names"),
    path("notes/", editing.add_note, name="add-note"),
    path("notes/<int:pk>/", editing.delete_note, name="delete-note"),
    path("campaigns/<path:key>/", views.campaign, name="campaign"),
    path("mutes/", muting.mute, name="mute"),
    path("filter/", filter_bar.narrow, name="narrow"),
    path("views/", saved_views.save, name="save-view"),
    path("views/<int:pk>/", saved_views.change, name="change-view"),
    path("suggest/", suggest.suggestions, name="suggest"),
    path("deliveries/", delivery_views.deliveries, name="deliveries"),
    path("deliveries/export/", delivery_views.export, name="export"),
    path("deliveries/<int:pk>/", delivery_views.delivery, name="delivery"),
    path("deliveries/<int:pk>/category/", delivery_views.assign, name="assign"),
    path("api/rates/", api_rates.rates, name="api-rates"),
    path("api/changes/", api_rates.changes, name="api-changes"),
    path("api/quality/", api_quality.data_quality, name="api-quality"),
    path("api/events/", api.events, name="api-events"),
    path("api/deliveries/", api.deliveries, name="api-deliveries"),
    path("api/deliveries/export/", delivery_views.api_export, name="api-export"),
    path("api/deliveries/<int:pk>/", api.delivery, name="api-delivery"),
    path("api/reasons/", api_reasons.reasons, name="api-reasons"),
    path("api/reasons/<int:pk>/", api_reasons.reason, name="api-reason"),
]
