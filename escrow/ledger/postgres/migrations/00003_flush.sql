-- +goose Up

-- A commit gives the lock of the order back before it is on disk. Who answers for it, or has read it, then changes a row of flushed in a
-- transaction of its own, which is: so all commits before it are on disk, too. Each uses one of 1,024 rows, so that hardly anyone waits for
-- another one. The rows say nothing more: commit is the number that was made sure of.
create table flushed (
	slot   int    primary key,
	commit bigint not null
) with (fillfactor = 50);
