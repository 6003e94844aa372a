package zone

import (
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
)

// changeable finds an app that somebody wants to change.
func (z *Core) changeable(who peer.User, name, doing string) (*app, error) {
	a, err := z.app(name)
	if err != nil {
		return nil, err
	}
	return a, z.access.MayChange(who, a.owned(), doing)
}

// owned is what counts of an app when somebody wants to change it.
func (a *app) owned() access.App {
	return access.App{Name: a.record.GetName(), Owner: a.record.GetUser(), Queue: a.record.GetSpec().GetQueue()}
}

// mayExec refuses who may not run commands in an app. Instances may be of any version that is kept.
func (z *Core) mayExec(who peer.User, name string) error {
	const doing = "run commands in"
	a, err := z.changeable(who, name, doing)
	if err != nil {
		return err
	}
	for _, version := range a.record.GetVersions() {
		if err := z.access.MayRunPrograms(who, version.GetSpec(), doing); err != nil {
			return err
		}
	}
	return nil
}
