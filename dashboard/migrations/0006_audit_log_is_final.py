"""The database itself refuses to change the audit log.

On SQLite rows can still be deleted: there a test's database is emptied row by row.
"""

from django.db import migrations

REFUSAL = "the audit log is only added to"

MAKE = {
    "sqlite": [
        "CREATE TRIGGER audit_log_is_final BEFORE UPDATE ON dashboard_auditentry "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    ],
    "postgresql": [
        "CREATE FUNCTION audit_log_is_final() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        "CREATE TRIGGER audit_log_is_final BEFORE UPDATE OR DELETE ON dashboard_auditentry "
        "FOR EACH ROW EXECUTE FUNCTION audit_log_is_final()",
    ],
}
DROP = {
    "sqlite": ["DROP TRIGGER audit_log_is_final"],
    "postgresql": [
        "DROP TRIGGER audit_log_is_final ON dashboard_auditentry",
        "DROP FUNCTION audit_log_is_final()",
    ],
}


def make(apps, schema_editor):
    for statement in MAKE[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def drop(apps, schema_editor):
    for statement in DROP[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):

    dependencies = [('dashboard', '0005_companies_and_audit_log')]

    operations = [migrations.RunPython(make, drop)]
