-- +goose Up

-- A commit writes the records that it changes, or it leaves that for later: then its row of the log has their new values, and a transaction
-- of its own, called a fold, writes them into the table records.

-- logged is the number of the last commit that has left its records to a fold.
alter table head add column logged bigint not null default 0;

-- new_values has the values of the keys, in their order; null for a key whose record is deleted. The whole column is null if the commit has
-- written the records itself. A row with values stays until they are folded, and for a minute more.
alter table log add column new_values bytea[];

-- fold has one row. Who folds has the lock of this row. The table records has the changes of all commits up to folded.
create table fold (
	id     int    primary key check (id = 1),
	folded bigint not null
);
insert into fold values (1, 0);
