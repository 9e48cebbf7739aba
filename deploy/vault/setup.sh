#!/usr/bin/env bash
# Sets the database secrets engine up as a platform team would, with the least rights that work: for PostgreSQL, a user
# for Vault and the groups (setup.sql); for Vault or OpenBao, the engine, three roles, the policy and the AppRole that
# leasehold logs in with. It may be run again at any time.
#
#   BAO_ADDR=... BAO_TOKEN=... PGHOST=... PGPORT=... PGUSER=postgres PGPASSWORD=... deploy/vault/setup.sh OUT_DIR
#
# It writes OUT_DIR/role_id and OUT_DIR/secret_id, mode 0600, and prints nothing secret. It needs psql, and the `bao` or
# `vault` command (or the one named by $BAO). PG* are those of a superuser; BAO_* or VAULT_* those of an administrator.
#
#   APP_DATABASE=myapp         the app's database; made if missing
#   VAULT_PG_HOST=$PGHOST:$PGPORT   PostgreSQL as Vault sees it; several with commas
#   VAULT_PG_SSLMODE=disable   how Vault connects to it: use verify-full beyond one machine
#   DEFAULT_TTL=1h MAX_TTL=24h      the leases
#   TOKEN_PERIOD=1h            the login's token is renewed without an end, each time by this; or, with TOKEN_PERIOD=0,
#   TOKEN_TTL=1h TOKEN_MAX_TTL=24h  it ends
set -euo pipefail

out=${1:?usage: setup.sh OUT_DIR}
here=$(cd "$(dirname "$0")" && pwd)
bao=${BAO:-$(command -v bao || command -v vault || true)}
[ -n "$bao" ] || { echo "setup: neither bao nor vault is on the PATH, and BAO is not set" >&2; exit 1; }
command -v psql >/dev/null || { echo "setup: psql is not on the PATH" >&2; exit 1; }

database=${APP_DATABASE:-myapp}
# Before PostgreSQL's user gets another password: does Vault answer, and may this token tell it that password?
mounts=$("$bao" secrets list -format=json)
may=$("$bao" token capabilities "database/config/$database")
case $may in
*root* | *update*) ;;
*) echo "setup: this token may not write database/config/$database in Vault" >&2; exit 1 ;;
esac
default_ttl=${DEFAULT_TTL:-1h} max_ttl=${MAX_TTL:-24h}

# 1. PostgreSQL. The password lives until rotate-root below; then only Vault knows it. It goes by standard input, as
# arguments can be read by every user of the machine.
vault_password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
{ printf '\\set vault_password %s\n' "$vault_password"; cat "$here/setup.sql"; } |
    PGDATABASE=${PGDATABASE:-postgres} psql -qX -v "database=$database" -f -

# 2. The engine and its connection.
[[ $mounts == *'"database/"'* ]] || "$bao" secrets enable database >/dev/null
printf '%s' "$vault_password" | "$bao" write database/config/"$database" \
    plugin_name=postgresql-database-plugin \
    allowed_roles=app-role,readonly-role,admin-role \
    connection_url="postgresql://{{username}}:{{password}}@${VAULT_PG_HOST:-${PGHOST:-localhost}:${PGPORT:-5432}}/$database?sslmode=${VAULT_PG_SSLMODE:-disable}" \
    password_authentication=scram-sha-256 \
    username=vault \
    password=- >/dev/null
"$bao" write -force database/rotate-root/"$database" >/dev/null

# 3. The roles. A role that Vault makes owns nothing and is granted nothing itself: it is a member of a group, so that
# dropping it is all there is to its revocation. Vault's own default for that is to REVOKE table by table first, for which
# it would need rights of its own on every table.
revoke='DROP ROLE IF EXISTS "{{name}}";'
login="LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
role() { # name statements
    "$bao" write database/roles/"$1" db_name="$database" default_ttl="$default_ttl" max_ttl="$max_ttl" \
        creation_statements="$2" revocation_statements="$revoke" \
        renew_statements="ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}';" >/dev/null
}
# NOINHERIT and SET role: every session is the group from its first statement, so what it makes belongs to the group,
# and a session that resets its role has no rights left to make anything with. What a role owns keeps it from being dropped.
role app-role "CREATE ROLE \"{{name}}\" $login NOINHERIT IN ROLE app_owner; ALTER ROLE \"{{name}}\" SET role = 'app_owner';"
role admin-role "CREATE ROLE \"{{name}}\" $login NOINHERIT IN ROLE app_admin; ALTER ROLE \"{{name}}\" SET role = 'app_admin';"
role readonly-role "CREATE ROLE \"{{name}}\" $login IN ROLE readonly;"

# 4. The policy: read the credentials, renew their leases. The default policy, which comes with every login, adds what
# leasehold does with its own token: look it up, renew it, revoke it. It may not revoke leases.
"$bao" policy write leasehold - >/dev/null <<'HCL'
path "database/creds/app-role"      { capabilities = ["read"] }
path "database/creds/readonly-role" { capabilities = ["read"] }
path "database/creds/admin-role"    { capabilities = ["read"] }
path "sys/leases/renew"             { capabilities = ["update"] }
HCL

# 5. The login.
methods=$("$bao" auth list -format=json)
[[ $methods == *'"approle/"'* ]] || "$bao" auth enable approle >/dev/null
"$bao" write auth/approle/role/leasehold token_policies=leasehold token_type=service \
    token_period="${TOKEN_PERIOD:-1h}" token_ttl="${TOKEN_TTL:-1h}" token_max_ttl="${TOKEN_MAX_TTL:-24h}" \
    secret_id_ttl=0 secret_id_num_uses=0 >/dev/null
mkdir -p "$out"
umask 077
rm -f "$out/role_id" "$out/secret_id"
"$bao" read -field=role_id auth/approle/role/leasehold/role-id >"$out/role_id"
"$bao" write -force -field=secret_id auth/approle/role/leasehold/secret-id >"$out/secret_id"
echo "setup: roles, policy and login are there; $out/role_id and $out/secret_id are the login of leasehold" >&2
