package main

import (
	"container/heap"
	"time"
)

// costs are what the parts of a transfer cost. They were measured, see docs/scale-out.md.
type costs struct {
	Call   time.Duration // CPU of a gateway for each call, besides the next three
	Run    time.Duration // CPU of a gateway: running one operation of a group, on the records that it has in memory
	Send   time.Duration // CPU of a gateway: encoding what one operation has changed, and keeping it in memory
	TakeIn time.Duration // CPU of a gateway: taking in what one operation of another gateway has changed
	Write  time.Duration // CPU of the database: what one operation adds to a commit
	Fold   time.Duration // CPU of the database: folding the records of one operation, behind
	Ask    time.Duration // CPU of the database for each round trip
	Trip   time.Duration // of the network, there and back, with waking up at both ends
	Flush  time.Duration // until the disk has a commit, after which the callers are answered. The lock is free before
	Hand   time.Duration // until the database has handed the lock to one who waits for it
}

// setup is what is simulated.
type setup struct {
	costs
	Gateways, Callers int // callers of each gateway: each makes one call after the other
	Cores             int // of each gateway
	DatabaseCores     int // 0: gateways, callers and database share the cores of one gateway
}

const (
	maxGroup  = 1024
	maxGather = time.Millisecond
	foldPause = 20 * time.Millisecond
	quantum   = 200 * time.Microsecond // a core goes to the next one who waits for it
)

// outcome is what the simulation measures.
type outcome struct {
	PerSecond     float64
	P50, P99      time.Duration // of a call, from its operation on
	Group         float64       // operations
	Locked        float64       // the part of the time in which a group has the lock
	DatabaseCores float64       // that are busy
	GatewayCores  float64       // that are busy, of one gateway
}

// simulation is a discrete-event simulation.
type simulation struct {
	setup
	now    time.Duration
	events events
	made   int // events so far

	database *cores
	locked   bool
	queue    []func() // who waits for the lock
	lockedAt time.Duration
	held     time.Duration
	commits  int
	written  int // operations
	unfolded int
	folding  bool
	took     []time.Duration
}

// simulate runs a setup for some time, after the same time of warming up.
func simulate(s setup, during time.Duration) outcome {
	sim := &simulation{setup: s}
	var gateways []*gateway
	shared := &cores{sim: sim, free: s.Cores}
	sim.database = shared
	if s.DatabaseCores > 0 {
		sim.database = &cores{sim: sim, free: s.DatabaseCores}
	}
	for range s.Gateways {
		g := &gateway{sim: sim, cores: shared, last: 1}
		if s.DatabaseCores > 0 {
			g.cores = &cores{sim: sim, free: s.Cores}
		}
		gateways = append(gateways, g)
		for range s.Callers {
			g.call()
		}
	}
	sim.runUntil(during)
	sim.commits, sim.written, sim.held, sim.took = 0, 0, 0, nil
	sim.database.used, gateways[0].cores.used = 0, 0
	for _, g := range gateways {
		g.seen = 0
	}
	sim.runUntil(2 * during)
	return sim.outcome(gateways[0], during)
}

func (s *simulation) outcome(g *gateway, during time.Duration) outcome {
	share := func(d time.Duration) float64 { return d.Seconds() / during.Seconds() }
	p50, p99 := percentiles(s.took)
	return outcome{
		PerSecond: float64(s.written) / during.Seconds(), P50: p50, P99: p99, Group: float64(s.written) / float64(max(1, s.commits)),
		Locked: share(s.held), DatabaseCores: share(s.database.used), GatewayCores: share(g.cores.used),
	}
}

func (s *simulation) runUntil(end time.Duration) {
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// after calls do after some time.
func (s *simulation) after(d time.Duration, do func()) {
	s.made++
	heap.Push(&s.events, event{s.now + d, s.made, do})
}

// cores are the cores of a machine. Work that takes long goes in turns with other work.
type cores struct {
	sim     *simulation
	free    int
	waiting []work
	used    time.Duration
}

type work struct {
	left time.Duration
	then func()
}

func (c *cores) use(d time.Duration, then func()) {
	c.waiting = append(c.waiting, work{d, then})
	c.next()
}

func (c *cores) next() {
	for c.free > 0 && len(c.waiting) > 0 {
		w := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.free--
		slice := min(w.left, quantum)
		c.sim.after(slice, func() {
			c.free++
			c.used += slice
			if w.left -= slice; w.left > 0 {
				c.waiting = append(c.waiting, w)
			} else {
				w.then()
			}
			c.next()
		})
	}
}

// lock calls do when the lock is free; who came first gets it first.
func (s *simulation) lock(do func()) {
	if s.locked {
		s.queue = append(s.queue, do)
		return
	}
	s.locked, s.lockedAt = true, s.now
	do()
}

func (s *simulation) unlock() {
	s.held += s.now - s.lockedAt
	if s.locked = len(s.queue) > 0; s.locked {
		next := s.queue[0]
		s.queue, s.lockedAt = s.queue[1:], s.now
		s.after(s.Hand, next)
	}
}

// fold folds what was committed, a moment later.
func (s *simulation) fold() {
	if s.folding || s.unfolded == 0 {
		return
	}
	s.folding = true
	s.after(foldPause, func() {
		n := s.unfolded
		s.unfolded = 0
		s.database.use(times(s.Fold, n), func() {
			s.folding = false
			s.fold()
		})
	})
}

// gateway is one process with its callers.
type gateway struct {
	sim     *simulation
	cores   *cores
	waiting []time.Duration // when each operation came
	last    int             // operations of the last group
	busy    bool            // a group is on its way
	timer   int             // counts the groups that were gathered
	seen    int             // operations of all gateways that this one knows
}

func (g *gateway) call() {
	g.cores.use(g.sim.Call, func() {
		g.waiting = append(g.waiting, g.sim.now)
		g.gather()
	})
}

// gather begins a group as soon as there are as many operations as in the last one, or a moment after the first one came.
func (g *gateway) gather() {
	switch {
	case g.busy || len(g.waiting) == 0:
	case len(g.waiting) >= min(g.last, maxGroup):
		g.begin()
	case len(g.waiting) == 1:
		timer := g.timer
		g.sim.after(maxGather, func() {
			if timer == g.timer && !g.busy && len(g.waiting) > 0 {
				g.begin()
			}
		})
	}
}

// begin takes a group through its two round trips.
func (g *gateway) begin() {
	n, s := min(len(g.waiting), maxGroup), g.sim
	ops := g.waiting[:n]
	g.waiting = g.waiting[n:]
	g.busy, g.last = true, n
	g.timer++
	g.cores.use(times(s.Run, n), func() {
		s.after(s.Trip/2, func() {
			s.lock(func() { s.database.use(s.Ask, func() { s.after(s.Trip/2, func() { g.locked(ops) }) }) })
		})
	})
}

// locked goes on when the group has the lock. If others have committed meanwhile, it runs again.
func (g *gateway) locked(ops []time.Duration) {
	n, s := len(ops), g.sim
	work := times(s.Send, n)
	if foreign := s.written - g.seen; foreign > 0 {
		work += times(s.TakeIn, foreign) + times(s.Run, n)
	}
	g.cores.use(work, func() {
		s.after(s.Trip/2, func() {
			s.database.use(s.Ask+times(s.Write, n), func() { g.commit(ops) })
		})
	})
}

func (g *gateway) commit(ops []time.Duration) {
	n, s := len(ops), g.sim
	s.written += n
	s.unfolded += n
	s.commits++
	g.seen = s.written
	s.unlock()
	s.fold()
	s.after(s.Flush+s.Trip/2, func() {
		g.busy = false
		for _, came := range ops {
			s.took = append(s.took, s.now-came)
			g.call()
		}
		g.gather()
	})
}

func times(d time.Duration, n int) time.Duration { return d * time.Duration(n) }

type event struct {
	at    time.Duration
	order int // of events at the same time
	do    func()
}

// events is a heap of events, the next one first.
type events []event

// Len implements [heap.Interface].
func (e events) Len() int { return len(e) }

// Less implements [heap.Interface].
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}

// Swap implements [heap.Interface].
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push implements [heap.Interface].
func (e *events) Push(x any) { *e = append(*e, x.(event)) }

// Pop implements [heap.Interface].
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
