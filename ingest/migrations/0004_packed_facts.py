from django.db import migrations, models

CHUNK = 1_000


def copy_facts(apps, schema_editor):
    """Facts stay the JSON that they were, as bytes; they are packed when they next change."""
    Delivery = apps.get_model("ingest", "Delivery")
    last = 0
    while rows := list(Delivery.objects.filter(pk__gt=last).order_by("pk").only("facts_text")[:CHUNK]):
        for row in rows:
            row.facts = row.facts_text.encode()
        Delivery.objects.bulk_update(rows, ["facts"])
        last = rows[-1].pk


class Migration(migrations.Migration):

    dependencies = [
        ("ingest", "0003_recent_signatures"),
    ]

    operations = [
        migrations.RenameField("delivery", "facts", "facts_text"),
        migrations.AddField("delivery", "facts", models.BinaryField(default=b"{}")),
        migrations.RunPython(copy_facts, migrations.RunPython.noop),
        migrations.RemoveField("delivery", "facts_text"),
    ]
