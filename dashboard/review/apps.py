"""Django's admin, entered through a site of our own."""

from django.contrib.admin import apps


class AdminConfig(apps.AdminConfig):
    """Django's admin with operators let in: see ``ReviewSite``."""

    default = False
    default_site = "dashboard.review.site.ReviewSite"
