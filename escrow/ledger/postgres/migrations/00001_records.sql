-- +goose Up

-- head has one row. The lock of this row is the order of the commits: who commits holds it from before it reads until it has committed.
create table head (
	id     int    primary key check (id = 1),
	commit bigint not null, -- the number of the last commit
	writer bigint not null, -- the process that made it
	owner  bigint not null, -- the gateway that alone may commit; 0: none
	beat   bigint not null  -- counted up by the owner as long as it lives
);
insert into head values (1, 0, 0, 0, 0);

-- log has a row for each commit of at least the last minute: who made it, and the keys of the records that it changed.
create table log (
	commit bigint  primary key,
	writer bigint  not null,
	keys   bytea[] not null
);

-- records has the ledger. A value ends with a checksum of the key and the rest of the value (CRC-32C, 4 bytes).
create table records (
	key   bytea primary key,
	value bytea not null
) with (fillfactor = 90);
