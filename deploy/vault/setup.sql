-- The database's side, as a superuser, by psql: the groups that own and read the schema, and the user that Vault logs
-- in as. It may be run again at any time; each run gives Vault's user a new password.
--
--   psql -v database=myapp -v vault_password=... -f setup.sql
--
-- PostgreSQL 15 or later; on 14 it works too, but there PUBLIC may create objects in the schema public.

\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;

SELECT NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') AS missing \gset
\if :missing
CREATE DATABASE :"database";
\endif
\connect :"database"
SET client_min_messages = warning;

-- The groups. They cannot log in themselves; the roles that Vault makes are their members.
SELECT format('CREATE ROLE %I NOLOGIN', name)
  FROM unnest(ARRAY['app_owner', 'readonly', 'app_admin']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- app_owner owns the schema and all that is made in it: an app's tables must not belong to a role that Vault drops.
GRANT CONNECT, TEMPORARY ON DATABASE :"database" TO app_owner, readonly;
ALTER SCHEMA public OWNER TO app_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- readonly reads what app_owner makes, now and later.
GRANT USAGE ON SCHEMA public TO readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO readonly;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public GRANT SELECT ON TABLES TO readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public GRANT SELECT ON SEQUENCES TO readonly;

-- app_admin has the rights of app_owner, and may see and end other sessions. A migration does SET ROLE app_owner first.
GRANT app_owner, pg_monitor, pg_signal_backend TO app_admin;

-- Vault's own user. It makes roles, moves their VALID UNTIL, drops them; it reads no table.
--   up to 15: CREATEROLE lets it do that to every role that is not a superuser.
--   from 16:  CREATEROLE reaches only the roles that it made; to put them into a group it needs ADMIN on that group,
--             and neither INHERIT nor SET, so it cannot itself act as the group.
SELECT 'CREATE ROLE vault' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'vault') \gexec
ALTER ROLE vault LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD :'vault_password';
SELECT current_setting('server_version_num')::int >= 160000 AS since_16 \gset
\if :since_16
GRANT app_owner, readonly, app_admin TO vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
\endif
