"""A migration for Alembic that creates the table of `SQLStore`: copy it into your `versions` directory.

`SQLStore(url).schema()` shows the same table as SQL. Set `down_revision` to the revision before it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "tokenmw_0001"
down_revision = None
branch_labels = None
depends_on = None

TABLE = "tokenmw_connections"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        TABLE,
        sa.Column("subject", _text(512), primary_key=True),
        sa.Column("app", _text(128), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )


def downgrade() -> None:
    """Drop the table. Every user has to connect again."""
    op.drop_table(TABLE)


def _text(longest: int) -> sa.types.TypeEngine[str]:
    # Compared and sorted by bytes, whatever the database's own collation is. SQLite does so by default.
    return sa.String(longest).with_variant(sa.String(longest, collation="C"), "postgresql")
