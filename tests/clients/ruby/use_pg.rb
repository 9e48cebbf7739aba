# Ruby's pg, and ActiveRecord's pool over it.

require "json"
require "logger" # ActiveRecord 6.1 expects that somebody has
require "pg"
require "active_record"

URL = ENV.fetch("CLIENT_URL")
KEYWORDS = { host: ENV["CLIENT_HOST"], port: ENV["CLIENT_PORT"], user: ENV["CLIENT_USER"], dbname: ENV["CLIENT_DATABASE"],
             password: ENV["CLIENT_PASSWORD"] }.compact
LARGE = ENV.fetch("LARGE_MB").to_i * 1024 * 1024
TABLE = "SET client_min_messages = warning; DROP TABLE IF EXISTS things; CREATE TABLE things (x int PRIMARY KEY)"

def step(name)
  puts JSON.generate(step: name, result: yield)
rescue StandardError => error
  warn error.full_message
  puts JSON.generate(step: name, failed: error.message[0, 300])
end

def session(target = URL)
  connection = PG.connect(target)
  connection.type_map_for_results = PG::BasicTypeMapForResults.new(connection)
  yield connection
ensure
  connection&.close
end

def value(connection, sql, values = [])
  connection.exec_params(sql, values).values[0][0]
end

def state_of
  yield
  nil
rescue PG::Error => error
  error.result&.error_field(PG::Result::PG_DIAG_SQLSTATE) || error.class.name
end

def who(connection)
  connection.exec("SELECT current_user, current_database()").values[0]
end

WORKERS = 8
PAUSE = 0.2 # seconds, the longest

# The SQLSTATE, of the driver's error where ActiveRecord has made one of its own of it, or its kind and first line.
def sqlstate(error)
  error = error.cause if error.cause.is_a?(PG::Error)
  state = error.result&.error_field(PG::PG_DIAG_SQLSTATE) if error.is_a?(PG::Error)
  state || "#{error.class}: #{error.message.lines.first.to_s.strip}"
end

# As recommended, each transaction takes a connection from the pool, as each request does in Rails; else each thread keeps its own.
def transact
  act = ->(connection) { connection.transaction { connection.select_value("SELECT 1") } }
  return act.call(ActiveRecord::Base.connection) unless ENV["POOL_SETTINGS"] == "recommended"

  ActiveRecord::Base.connection_pool.with_connection(&act)
end

def work_on_pool
  ActiveRecord::Base.establish_connection("#{URL}?pool=#{WORKERS}")
  worked, errors, lock, stop = 0, Hash.new(0), Mutex.new, false
  workers = WORKERS.times.map do |number|
    Thread.new do
      (1..).each do |step|
        break if stop

        begin
          transact
          lock.synchronize { worked += 1 }
        rescue StandardError => error
          lock.synchronize { errors[sqlstate(error)] += 1 }
        end
        sleep PAUSE * ((number * 7 + step * 3) % 10) / 10
      end
    end
  end
  puts "working"
  $stdin.read
  stop = true
  workers.each(&:join)
  puts JSON.generate(worked: worked, errors: errors)
end

if ARGV == ["pool"]
  $stdout.sync = true
  work_on_pool
  exit
end

step("version") { "ruby-pg #{PG::VERSION}, ActiveRecord #{ActiveRecord::VERSION::STRING}" }
step("url") { session { |connection| who(connection) } }
step("keywords") { session(KEYWORDS) { |connection| who(connection) } }
step("identity") { session { |connection| value(connection, "SELECT identity()::text") } }
step("prepared") do
  session do |connection|
    connection.prepare("double", "SELECT $1::int * 2")
    [1, 2, 3].map { |n| connection.exec_prepared("double", [n]).values[0][0] }
  end
end
step("batch") do
  session do |connection|
    connection.exec(TABLE)
    connection.enter_pipeline_mode
    (1..100).each { |n| connection.send_query_params("INSERT INTO things VALUES ($1)", [n]) }
    connection.pipeline_sync
    100.times { connection.get_last_result }
    connection.get_result
    connection.exit_pipeline_mode
    value(connection, "SELECT sum(x) FROM things").to_i
  end
end
step("transaction") do
  session do |connection|
    connection.exec(TABLE)
    connection.transaction do
      connection.exec("INSERT INTO things VALUES (1); SAVEPOINT s; INSERT INTO things VALUES (2); ROLLBACK TO s")
      connection.exec("INSERT INTO things VALUES (3)")
    end
    begin
      connection.transaction { connection.exec("INSERT INTO things VALUES (4)") && raise("undo") }
    rescue RuntimeError
      connection.exec("SELECT x FROM things ORDER BY x").values.flatten
    end
  end
end
step("errors") do
  session do |connection|
    connection.exec(TABLE)
    connection.exec("INSERT INTO things VALUES (1)")
    connection.exec("BEGIN")
    states = ["SELECT 1/0", "SELECT 1"].map { |sql| state_of { connection.exec(sql) } }
    connection.exec("ROLLBACK")
    states + ["INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT"].map { |sql| state_of { connection.exec(sql) } }
  end
end
step("large") do
  session do |connection|
    sent = ("\x00\xFFleasehold".b * (LARGE / 11 + 1))[0, LARGE]
    row = connection.exec_params("SELECT length(v), v FROM (SELECT $1::bytea AS v) t", [{ value: sent, format: 1 }])
    [row.getvalue(0, 0) / 1024 / 1024, row.getvalue(0, 1) == sent]
  end
end
step("copy") do
  session do |connection|
    connection.exec(TABLE)
    connection.copy_data("COPY things FROM STDIN") { (1..10_000).each { |n| connection.put_copy_data("#{n}\n") } }
    sum = 0
    connection.copy_data("COPY things TO STDOUT") do
      while (line = connection.get_copy_data)
        sum += line.to_i
      end
    end
    [value(connection, "SELECT count(*) FROM things"), sum]
  end
end
step("notify") do
  session do |listener|
    listener.exec("LISTEN news")
    session { |other| other.exec("NOTIFY news, 'said'") }
    payload = nil
    listener.wait_for_notify(10) { |_, _, said| payload = said }
    payload
  end
end
step("cursor") do
  session do |connection|
    connection.exec("BEGIN; DECLARE numbers CURSOR FOR SELECT * FROM generate_series(1, 1000)")
    sum = 0
    until (rows = connection.exec("FETCH 100 FROM numbers").values).empty?
      sum += rows.sum { |row| row[0] }
    end
    sum
  end
end
step("cancel") do
  session do |connection|
    connection.send_query("SELECT pg_advisory_xact_lock(7), pg_sleep(30)")
    session do |other|
      sleep 0.05 while value(other, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted").zero?
    end
    connection.cancel
    [state_of { connection.get_last_result }, value(connection, "SELECT 1")]
  end
end
step("timeout") do
  session(KEYWORDS.merge(options: "-c statement_timeout=500")) do |connection|
    [state_of { connection.exec("SELECT pg_sleep(30)") }, value(connection, "SELECT 1")]
  end
end
step("types") do
  session do |connection|
    connection.exec("SET timezone = 'UTC'")
    connection.type_map_for_queries = PG::BasicTypeMapForQueries.new(connection)
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    values = [true, 2**63 - 1, "12345.6789", 1.5, "naïve ☃", "\\x00ff", "2024-02-29",
              "2024-02-29 12:34:56.789+00", uuid, JSON.generate({ a: [1, nil] }), "{1,2,3}", nil]
    casts = %w[bool int8 numeric float8 text bytea date timestamptz uuid jsonb int4[] text].each_with_index.map { |cast, n| "$#{n + 1}::#{cast}" }
    casts[11] = "coalesce($12::text, '')"
    line = value(connection, "SELECT concat_ws('|', #{casts.join(', ')})", values)
    back = connection.exec_params("SELECT $1::bool, $2::int8, $3::float8, $4::text", [true, 2**63 - 1, 1.5, "naïve ☃"]).values[0]
    [line, back == [true, 2**63 - 1, 1.5, "naïve ☃"]]
  end
end
step("reconnect") do
  said = session { |connection| state_of { connection.exec("SELECT end_session()") } }
  [said, session { |connection| value(connection, "SELECT 1") }]
end
step("pool") do
  ActiveRecord::Base.establish_connection("#{URL}#{URL.include?('?') ? '&' : '?'}pool=4")
  # It speaks through models, and makes its tables by itself.
  ActiveRecord::Schema.verbose = false
  ActiveRecord::Schema.define { create_table(:things, force: :cascade) { |t| t.integer :x, null: false } }
  thing = Class.new(ActiveRecord::Base) { self.table_name = "things" }
  4.times.map do
    Thread.new do
      5.times { |n| ActiveRecord::Base.connection_pool.with_connection { thing.transaction { thing.create!(x: n) } } }
    end
  end.each(&:join)
  thing.count
ensure
  ActiveRecord::Base.connection_pool.disconnect!
end
