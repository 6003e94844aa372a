package container

// Events lists all events.
func Events() []Event {
	all := make([]Event, PurgeFailed+1)
	for i := range all {
		all[i] = Event(i)
	}
	return all
}
