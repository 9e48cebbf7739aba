<?php
// PHP's PDO for PostgreSQL.

[$host, $port, $user, $database] = array_map('getenv', ['CLIENT_HOST', 'CLIENT_PORT', 'CLIENT_USER', 'CLIENT_DATABASE']);
$password = getenv('CLIENT_PASSWORD') ?: null;  // none through leasehold
define('LARGE', (int) getenv('LARGE_MB') * 1024 * 1024);

function connect(string $options = ''): PDO {
    global $host, $port, $user, $database, $password;
    return new PDO("pgsql:host=$host;port=$port;dbname=$database;user=$user$options", null, $password);
}

function tell(string $step, callable $act): void {
    try {
        echo json_encode(['step' => $step, 'result' => $act()], JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE), "\n";
    } catch (Throwable $error) {
        fwrite(STDERR, "$step: $error\n");
        echo json_encode(['step' => $step, 'failed' => $error->getMessage()]), "\n";
    }
}

function value(PDO $db, string $sql, array $values = []) {
    $statement = $db->prepare($sql);
    $statement->execute($values);
    return $statement->fetchColumn();
}

function stateOf(PDO $db, string $sql): ?string {
    try {
        $db->query($sql);
        return null;
    } catch (PDOException $error) {
        return $error->getCode();
    }
}

function table(PDO $db): void {
    $db->exec('DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)');
}

// Of a connection that PHP keeps beyond the request.
function persistent(): PDO {
    global $host, $port, $user, $database, $password;
    return new PDO("pgsql:host=$host;port=$port;dbname=$database;user=$user", null, $password, [PDO::ATTR_PERSISTENT => true]);
}

function transact(PDO $db): int {
    $db->beginTransaction();
    try {
        $one = value($db, 'SELECT 1');
        $db->commit();
        return $one;
    } catch (PDOException $error) {
        // Otherwise PDO goes on believing that it is in a transaction.
        try { $db->rollBack(); } catch (PDOException) { }
        throw $error;
    }
}

// One that works: by itself PHP sees that the server has closed a connection, but not if it has said why. A query that fails shows it.
function working(): PDO {
    $db = persistent();
    try {
        $db->query('SELECT 1');
        return $db;
    } catch (PDOException) {
        return persistent();
    }
}

// `use_pdo.php pool`: a process of PHP does one thing at a time, so it is one worker. Each piece of work asks for its connection, as
// requests do.
function workOnPool(): void {
    $take = getenv('POOL_SETTINGS') === 'recommended' ? 'working' : 'persistent';
    $worked = 0;
    $errors = [];
    echo "working\n";
    for ($step = 1; !feof(STDIN); $step++) {
        try {
            transact($take());
            $worked++;
        } catch (PDOException $error) {
            $code = $error->getCode() === 'HY000' ? strtok($error->getMessage(), "\n") : (string) $error->getCode();
            $errors[$code] = ($errors[$code] ?? 0) + 1;
        }
        [$read, $write, $except] = [[STDIN], [], []];
        if (stream_select($read, $write, $except, 0, 20000 * ($step * 3 % 10))) {
            fread(STDIN, 1);
        }
    }
    echo json_encode(['worked' => $worked, 'errors' => (object) $errors], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}

if ($argc > 1) {
    workOnPool();
    exit;
}

const WHO = 'SELECT current_user, current_database()';

tell('version', fn () => 'PDO of PHP ' . explode('-', PHP_VERSION)[0]);
tell('keywords', fn () => connect()->query(WHO)->fetch(PDO::FETCH_NUM));
tell('identity', fn () => value(connect(), 'SELECT identity()'));
tell('prepared', function () {
    $double = connect()->prepare('SELECT ?::int * 2');
    return array_map(function ($n) use ($double) {
        $double->execute([$n]);
        return $double->fetchColumn();
    }, [1, 2, 3]);
});
tell('batch', function () {
    table($db = connect());
    $db->exec(implode(';', array_map(fn ($n) => "INSERT INTO things VALUES ($n)", range(1, 100))));
    return value($db, 'SELECT sum(x) FROM things');
});
tell('transaction', function () {
    table($db = connect());
    $db->beginTransaction();
    foreach (['INSERT INTO things VALUES (1)', 'SAVEPOINT s', 'INSERT INTO things VALUES (2)', 'ROLLBACK TO s',
              'INSERT INTO things VALUES (3)'] as $sql) {
        $db->exec($sql);
    }
    $db->commit();
    $db->beginTransaction();
    $db->exec('INSERT INTO things VALUES (4)');
    $db->rollBack();
    return $db->query('SELECT x FROM things ORDER BY x')->fetchAll(PDO::FETCH_COLUMN);
});
tell('errors', function () {
    table($db = connect());
    $db->exec('INSERT INTO things VALUES (1)');
    $db->beginTransaction();
    $states = [stateOf($db, 'SELECT 1/0'), stateOf($db, 'SELECT 1')];
    $db->rollBack();
    foreach (['INSERT INTO things VALUES (1)', 'SELECT * FROM no_such_table', 'SELEKT'] as $sql) {
        $states[] = stateOf($db, $sql);
    }
    return $states;
});
tell('large', function () {
    $db = connect();
    $sent = substr(str_repeat('leasehold', intdiv(LARGE, 9) + 1), 0, LARGE);
    $back = value($db, 'SELECT ?::text', [$sent]);
    return [strlen($back) / 1024 / 1024, $back === $sent];
});
tell('copy', function () {
    table($db = connect());
    $db->pgsqlCopyFromArray('things', array_map(fn ($n) => "$n\n", range(1, 10000)));
    return [value($db, 'SELECT count(*) FROM things'), array_sum(array_map('intval', $db->pgsqlCopyToArray('things')))];
});
tell('notify', function () {
    $listener = connect();
    $listener->exec('LISTEN news');
    connect()->exec("NOTIFY news, 'said'");
    return $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 10000)['payload'];
});
tell('cursor', function () {
    $db = connect();
    $db->beginTransaction();
    $numbers = $db->prepare('SELECT * FROM generate_series(1, 1000)', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $numbers->execute();
    for ($sum = 0; ($row = $numbers->fetch(PDO::FETCH_NUM)) !== false; $sum += $row[0]);
    return $sum;
});
tell('timeout', function () {
    $db = connect(";options='-c statement_timeout=500'");
    return [stateOf($db, 'SELECT pg_sleep(30)'), value($db, 'SELECT 1')];
});
tell('types', function () {
    $db = connect();
    $db->exec("SET timezone = 'UTC'");
    $values = ['t', '9223372036854775807', '12345.6789', '1.5', 'naïve ☃', '\x00ff', '2024-02-29', '2024-02-29 12:34:56.789+00',
               '01234567-89ab-cdef-0123-456789abcdef', '{"a": [1, null]}', '{1,2,3}', null];
    $casts = ['bool', 'int8', 'numeric', 'float8', 'text', 'bytea', 'date', 'timestamptz', 'uuid', 'jsonb', 'int4[]'];
    $line = value($db, 'SELECT concat_ws(\'|\', ?::' . implode(', ?::', $casts) . ', coalesce(?::text, \'\'))', $values);
    $back = $db->query("SELECT true, 9223372036854775807, 'naïve ☃'")->fetch(PDO::FETCH_NUM);
    return [$line, $back === [true, PHP_INT_MAX, 'naïve ☃']];
});
tell('reconnect', function () {
    $state = stateOf(connect(), 'SELECT end_session()');
    return [$state, value(connect(), 'SELECT 1')];
});
tell('pool', function () {
    for ($sum = 0, $n = 0; $n < 20; $n++) {
        $sum += transact(persistent());
    }
    return $sum;
});
