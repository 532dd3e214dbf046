package escrow

import "time"

// accept marks a milestone as released.
func (m *Milestone) accept(at time.Time) {
	if m.Status != MilestoneAccepted {
		m.Status, m.AcceptedAt = MilestoneAccepted, at
	}
}

func (e *Escrow) milestone(name string) *Milestone {
	for i := range e.Milestones {
		if e.Milestones[i].Name == name {
			return &e.Milestones[i]
		}
	}
	return nil
}

func noMilestone(name string) error {
	return invalid("milestone", "the escrow has no milestone %.80q", name)
}

// AcceptMilestone releases a milestone's amount. The payer may accept it before the payee has said that it is delivered.
func (t *Tx) AcceptMilestone(by Actor, id, name, memo string) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if err := e.mayRelease(by); err != nil {
		return Escrow{}, err
	}
	m := e.milestone(name)
	if m == nil {
		return Escrow{}, noMilestone(name)
	}
	if m.Status == MilestoneAccepted {
		return Escrow{}, refuse(InvalidStatus, nil, "milestone %q was accepted on %s", name, m.AcceptedAt.Format(time.RFC3339))
	}
	m.accept(t.Now())
	if memo == "" {
		memo = name
	}
	return t.releasePart(by, e, m.Amount, memo)
}

// DeliverMilestone records that the work of a milestone is done. Only the payee and the operator may do this.
func (t *Tx) DeliverMilestone(by Actor, id, name, note string) (Escrow, error) {
	e, err := t.party(by, id)
	if err != nil {
		return Escrow{}, err
	}
	if !by.Operator && by.Agent != e.To {
		return Escrow{}, refuse(Forbidden, nil, "only the payee delivers")
	}
	if err := checkText("note", note); err != nil {
		return Escrow{}, err
	}
	m := e.milestone(name)
	if m == nil {
		return Escrow{}, refuse(NotFound, nil, "the escrow has no milestone %.80q", name)
	}
	if e.Closing != "" || e.Status.Closed() {
		return Escrow{}, e.wrongStatus("delivery")
	}
	if m.Status != MilestonePending {
		return Escrow{}, refuse(InvalidStatus, nil, "milestone %q is %s already", name, m.Status)
	}
	m.Status, m.Note, m.DeliveredAt = MilestoneDelivered, note, t.Now()
	return t.saveAct(by, e, "escrow.deliver", MilestoneWasDelivered)
}
