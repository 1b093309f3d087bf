import json

import django.db.models.deletion
from django.db import migrations, models


STEP = 9  # vocabulary.Dimension.STEP


def name_steps(apps, schema_editor):
    """Steps were texts of the deliveries; they become values like the other dimensions."""
    Delivery = apps.get_model("ingest", "Delivery")
    Value = apps.get_model("ingest", "Value")
    none, _ = Value.objects.get_or_create(dimension=STEP, text="")
    Delivery.objects.update(step_id=none.pk)
    texts = Delivery.objects.exclude(step_text="").order_by().values_list("step_text", flat=True)
    for text in texts.distinct():
        value, _ = Value.objects.get_or_create(dimension=STEP, text=text)
        Delivery.objects.filter(step_text=text).update(step_id=value.pk)


WAYS = ((1, 6), (2, 7), (3, 10))  # place in a stored attempt, Dimension of IP, pool and MX


def attempts_of(Delivery):
    """(location, dimension, text) of whatever stored attempts went through."""
    found = set()
    rows = Delivery.objects.exclude(facts="{}").values_list("location_id", "facts")
    for location, facts in rows.iterator(2_000):
        for attempt in json.loads(facts).get("a", ()):
            found |= {(location, dimension, attempt[i]) for i, dimension in WAYS if attempt[i]}
    return found


COLUMNS = ("campaign_id", "step_id", "provider_id", "domain_id", "sending_domain_id")


def count_apart(apps, schema_editor):
    """Whatever was counted so far stays counted apart."""
    tables = {name: apps.get_model("ingest", name) for name in (
        "Delivery", "HourlyCount", "Value", "CountedValue", "CountedValues")}
    attempts = attempts_of(tables["Delivery"])
    tables["Value"].objects.bulk_create(
        [tables["Value"](dimension=dimension, text=text)
         for dimension, text in sorted({way[1:] for way in attempts})],
        ignore_conflicts=True,
    )
    ways = {(dimension, text): pk for pk, dimension, text in tables["Value"].objects.filter(
        dimension__in=[6, 7]).values_list("id", "dimension", "text")}
    dimensions = dict(tables["Value"].objects.exclude(text="").values_list("id", "dimension"))
    pairs = set(tables["HourlyCount"].objects.values_list("location_id", "value_id").distinct())
    for column in COLUMNS:
        pairs |= set(tables["Delivery"].objects.values_list("location_id", column).distinct())
    pairs |= {(location, ways[way]) for location, *rest in attempts for way in [tuple(rest)]
              if way in ways}
    pairs = sorted(pair for pair in pairs if pair[1] in dimensions)
    tables["CountedValue"].objects.bulk_create(
        [tables["CountedValue"](location_id=location, value_id=value) for location, value in pairs],
        batch_size=500,
    )
    used = {}
    for location, value in pairs:
        used[location, dimensions[value]] = used.get((location, dimensions[value]), 0) + 1
    tables["CountedValues"].objects.bulk_create(
        [tables["CountedValues"](location_id=location, dimension=dimension, used=n)
         for (location, dimension), n in used.items()],
        batch_size=500,
    )


class Migration(migrations.Migration):

    dependencies = [
        ('ingest', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Reason',
            fields=[
                ('id', models.AutoField(primary_key=True, serialize=False)),
                ('digest', models.BinaryField(max_length=8, unique=True)),
                ('text', models.CharField(max_length=400)),
                ('category', models.PositiveSmallIntegerField(choices=[(0, 'none'), (1, 'invalid recipient'), (2, 'inactive mailbox'), (3, 'dns routing'), (4, 'mailbox full'), (5, 'rate limited'), (6, 'greylisted'), (7, 'connection'), (8, 'server error'), (9, 'message too large'), (10, 'spam content'), (11, 'reputation block'), (12, 'authentication'), (13, 'policy'), (14, 'tls'), (15, 'protocol error'), (16, 'suppressed'), (17, 'unclassified')], default=0)),
                ('bounce_class', models.PositiveSmallIntegerField(choices=[(0, 'none'), (1, 'hard'), (2, 'soft'), (3, 'block'), (4, 'suppressed'), (5, 'undetermined')], default=0)),
            ],
        ),
        migrations.CreateModel(
            name='AnswerHour',
            fields=[
                ('pk', models.CompositePrimaryKey('hour', 'source_id', 'status', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.IntegerField()),
                ('status', models.CharField(max_length=20)),
                ('answers', models.IntegerField(default=0)),
                ('source', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='ingest.source')),
            ],
        ),
        migrations.CreateModel(
            name='ClassificationRule',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.PositiveIntegerField(default=100)),
                ('name', models.SlugField(max_length=60, unique=True)),
                ('text', models.CharField(blank=True, help_text='A phrase of the reply, or a pattern in /slashes/.', max_length=300)),
                ('provider', models.CharField(blank=True, max_length=200)),
                ('code', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('enhanced', models.CharField(blank=True, max_length=12)),
                ('category', models.PositiveSmallIntegerField(choices=[(1, 'invalid recipient'), (2, 'inactive mailbox'), (3, 'dns routing'), (4, 'mailbox full'), (5, 'rate limited'), (6, 'greylisted'), (7, 'connection'), (8, 'server error'), (9, 'message too large'), (10, 'spam content'), (11, 'reputation block'), (12, 'authentication'), (13, 'policy'), (14, 'tls'), (15, 'protocol error'), (16, 'suppressed'), (17, 'unclassified')])),
                ('bounce_class', models.PositiveSmallIntegerField(choices=[(0, 'none'), (1, 'hard'), (2, 'soft'), (3, 'block'), (4, 'suppressed'), (5, 'undetermined')], default=0, help_text="None: the category's own.")),
                ('scope', models.CharField(blank=True, max_length=20)),
                ('fix_by', models.CharField(blank=True, max_length=20, verbose_name='who can fix it')),
                ('note', models.CharField(blank=True, max_length=300)),
                ('enabled', models.BooleanField(default=True)),
                ('changed_at', models.DateTimeField(auto_now=True)),
            ],
            options={
                'ordering': ['position', 'name'],
            },
        ),
        migrations.CreateModel(
            name='CountedValue',
            fields=[
                ('pk', models.CompositePrimaryKey('location_id', 'value_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('location', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='ingest.location')),
                ('value', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value')),
            ],
        ),
        migrations.CreateModel(
            name='CountedValues',
            fields=[
                ('pk', models.CompositePrimaryKey('location_id', 'dimension', blank=True, editable=False, primary_key=True, serialize=False)),
                ('dimension', models.PositiveSmallIntegerField(choices=[(1, 'campaign'), (2, 'tag'), (3, 'provider'), (4, 'domain'), (5, 'sending domain'), (6, 'ip'), (7, 'pool'), (8, 'category'), (9, 'step'), (10, 'mx')])),
                ('used', models.IntegerField(default=0)),
                ('location', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='ingest.location')),
            ],
        ),
        migrations.CreateModel(
            name='EventHour',
            fields=[
                ('pk', models.CompositePrimaryKey('location_id', 'hour', 'provider_id', 'kind', 'bounce_class', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.IntegerField()),
                ('kind', models.PositiveSmallIntegerField(choices=[(1, 'accepted'), (2, 'delivered'), (3, 'deferred'), (4, 'bounced'), (5, 'suppressed'), (6, 'rejected'), (7, 'complained'), (8, 'unsubscribed'), (9, 'opened'), (10, 'clicked'), (11, 'stored'), (12, 'unknown')])),
                ('bounce_class', models.PositiveSmallIntegerField(choices=[(0, 'none'), (1, 'hard'), (2, 'soft'), (3, 'block'), (4, 'suppressed'), (5, 'undetermined')], default=0)),
                ('events', models.IntegerField(default=0)),
                ('location', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='ingest.location')),
                ('provider', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value')),
            ],
        ),
        migrations.CreateModel(
            name='Horizon',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('deliveries_hour', models.IntegerField(default=0)),
                ('events_cursor', models.BigIntegerField(default=0, help_text='The newest event let go of.')),
                ('events_hour', models.IntegerField(default=0, help_text='Received before it: let go of.')),
                ('payloads_cursor', models.BigIntegerField(default=0)),
                ('days_hour', models.IntegerField(default=0, help_text='Before it, hours are kept as days.')),
            ],
        ),
        migrations.CreateModel(
            name='QualityHour',
            fields=[
                ('pk', models.CompositePrimaryKey('location_id', 'hour', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.IntegerField()),
                ('events', models.IntegerField(default=0)),
                ('duplicates', models.IntegerField(default=0)),
                ('conflicts', models.IntegerField(default=0)),
                ('unknown_kinds', models.IntegerField(default=0)),
                ('undated', models.IntegerField(default=0)),
                ('no_message_id', models.IntegerField(default=0)),
                ('no_recipient', models.IntegerField(default=0)),
                ('unattributed', models.IntegerField(default=0)),
                ('before_horizon', models.IntegerField(default=0)),
                ('lag_0', models.IntegerField(default=0)),
                ('lag_1', models.IntegerField(default=0)),
                ('lag_2', models.IntegerField(default=0)),
                ('lag_3', models.IntegerField(default=0)),
                ('lag_4', models.IntegerField(default=0)),
                ('lag_5', models.IntegerField(default=0)),
                ('lag_6', models.IntegerField(default=0)),
                ('lag_7', models.IntegerField(default=0)),
                ('location', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='ingest.location')),
            ],
        ),
        migrations.CreateModel(
            name='QuarantinedWebhook',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('received_at', models.DateTimeField()),
                ('headers', models.TextField(default='{}', help_text='The signature headers, as JSON.')),
                ('digest', models.BinaryField(max_length=16, unique=True)),
                ('body', models.BinaryField()),
                ('source', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to='ingest.source')),
            ],
        ),
        migrations.CreateModel(
            name='ReasonHour',
            fields=[
                ('pk', models.CompositePrimaryKey('location_id', 'hour', 'reason_id', 'provider_id', 'pool_id', 'kind', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.IntegerField()),
                ('kind', models.PositiveSmallIntegerField(choices=[(1, 'accepted'), (2, 'delivered'), (3, 'deferred'), (4, 'bounced'), (5, 'suppressed'), (6, 'rejected'), (7, 'complained'), (8, 'unsubscribed'), (9, 'opened'), (10, 'clicked'), (11, 'stored'), (12, 'unknown')])),
                ('events', models.IntegerField(default=0)),
                ('location', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='ingest.location')),
                ('pool', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value')),
                ('provider', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value')),
                ('reason', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='ingest.reason')),
            ],
        ),
        migrations.CreateModel(
            name='ReasonProvider',
            fields=[
                ('pk', models.CompositePrimaryKey('reason_id', 'provider_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
                ('provider', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value')),
                ('reason', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, to='ingest.reason')),
            ],
        ),
        migrations.RemoveIndex(
            model_name='delivery',
            name='delivery_location_sent',
        ),
        migrations.AddField(
            model_name='delivery',
            name='ip',
            field=models.ForeignKey(db_constraint=False, db_index=False, default=0, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value'),
        ),
        migrations.AddField(
            model_name='delivery',
            name='mx',
            field=models.ForeignKey(db_constraint=False, db_index=False, default=0, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value'),
        ),
        migrations.AddField(
            model_name='delivery',
            name='pool',
            field=models.ForeignKey(db_constraint=False, db_index=False, default=0, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value'),
        ),
        migrations.AddField(
            model_name='delivery',
            name='ways',
            field=models.TextField(default=','),
        ),
        migrations.AddField(
            model_name='event',
            name='bounce_class',
            field=models.PositiveSmallIntegerField(choices=[(0, 'none'), (1, 'hard'), (2, 'soft'), (3, 'block'), (4, 'suppressed'), (5, 'undetermined')], default=0),
        ),
        migrations.AddField(
            model_name='event',
            name='category',
            field=models.PositiveSmallIntegerField(choices=[(0, 'none'), (1, 'invalid recipient'), (2, 'inactive mailbox'), (3, 'dns routing'), (4, 'mailbox full'), (5, 'rate limited'), (6, 'greylisted'), (7, 'connection'), (8, 'server error'), (9, 'message too large'), (10, 'spam content'), (11, 'reputation block'), (12, 'authentication'), (13, 'policy'), (14, 'tls'), (15, 'protocol error'), (16, 'suppressed'), (17, 'unclassified')], default=0),
        ),
        migrations.AddField(
            model_name='event',
            name='provider',
            field=models.ForeignKey(db_constraint=False, db_index=False, default=0, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value'),
        ),
        migrations.AddField(
            model_name='event',
            name='webhook',
            field=models.BigIntegerField(help_text='Digest of the webhookId, if any.', null=True),
        ),
        migrations.AddField(
            model_name='hourlycount',
            name='block_high',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='hourlycount',
            name='block_low',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='hourlycount',
            name='moved',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='hourlycount',
            name='visible_complained',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='hourlycount',
            name='visible_reached',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='locationhour',
            name='block_high',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='locationhour',
            name='block_low',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='locationhour',
            name='moved',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='locationhour',
            name='visible_complained',
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name='locationhour',
            name='visible_reached',
            field=models.IntegerField(default=0),
        ),
        migrations.AlterField(
            model_name='delivery',
            name='flags',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.RenameField(
            model_name='delivery',
            old_name='step',
            new_name='step_text',
        ),
        migrations.AddField(
            model_name='delivery',
            name='step',
            field=models.ForeignKey(db_constraint=False, db_index=False, default=0, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.value'),
        ),
        migrations.RunPython(name_steps, migrations.RunPython.noop),
        migrations.RemoveField(
            model_name='delivery',
            name='step_text',
        ),
        migrations.AlterField(
            model_name='hourlycount',
            name='dimension',
            field=models.PositiveSmallIntegerField(choices=[(1, 'campaign'), (2, 'tag'), (3, 'provider'), (4, 'domain'), (5, 'sending domain'), (6, 'ip'), (7, 'pool'), (8, 'category'), (9, 'step'), (10, 'mx')]),
        ),
        migrations.AlterField(
            model_name='value',
            name='dimension',
            field=models.PositiveSmallIntegerField(choices=[(1, 'campaign'), (2, 'tag'), (3, 'provider'), (4, 'domain'), (5, 'sending domain'), (6, 'ip'), (7, 'pool'), (8, 'category'), (9, 'step'), (10, 'mx')]),
        ),
        migrations.AddField(
            model_name='delivery',
            name='reason',
            field=models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.reason'),
        ),
        migrations.AddField(
            model_name='event',
            name='reason',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='ingest.reason'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(fields=['location', 'sent_at', 'id'], include=('outcome', 'flags', 'bounce_class', 'category', 'campaign', 'step', 'provider', 'domain', 'sending_domain', 'ip', 'pool', 'tags', 'ways'), name='delivery_location_sent'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(condition=models.Q(('reason__isnull', False)), fields=['reason', 'id'], name='event_reason'),
        ),
        migrations.AddIndex(
            model_name='eventhour',
            index=models.Index(fields=['hour'], name='event_hour_hour'),
        ),
        migrations.AddIndex(
            model_name='qualityhour',
            index=models.Index(fields=['hour'], name='quality_hour_hour'),
        ),
        migrations.AddIndex(
            model_name='quarantinedwebhook',
            index=models.Index(fields=['received_at'], name='quarantined_received'),
        ),
        migrations.AddIndex(
            model_name='reasonhour',
            index=models.Index(fields=['hour'], name='reason_hour_hour'),
        ),
        migrations.AddIndex(
            model_name='reasonhour',
            index=models.Index(fields=['reason', 'hour'], name='reason_hour_reason'),
        ),
        migrations.RunPython(count_apart, migrations.RunPython.noop),
    ]
