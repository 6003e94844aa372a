package plan

// order owns whether the desired version may begin: other roles may have to be ready before.
type order struct {
	// comesAfter is why the desired version is not begun with: a sentence about the roles that it comes after. It is empty once they
	// are ready.
	comesAfter string
	// deferred is true while the desired version waits for other roles: it is not begun with, and what runs of other versions stays.
	// ready is true while the role is as desired. Both are as of the last Next.
	deferred, ready bool
}

func (o *order) setComesAfter(reason string) { o.comesAfter = reason }

// decide decides whether a version is begun with. One that has begun goes on, and one without instances has nothing to wait for.
func (o *order) decide(begun bool, count int) { o.deferred = o.comesAfter != "" && count > 0 && !begun }

func (o *order) setReady(ready bool) { o.ready = ready }

// isReady reports whether the role was as desired in the last Next.
func (o *order) isReady() bool { return o.ready }

// waits reports whether the version is not begun with, and why.
func (o *order) waits() (why string, deferred bool) { return o.comesAfter, o.deferred }
