package zone

import (
	"slices"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/framework"
)

// packages are the framework packages with the apps that have them.
type packages struct {
	*turn
	*framework.Packages
	access   *access.Rules
	units    *units
	apps     *apps
	attempts *attempts
}

func (ps *packages) load(stored Records) error {
	return loadRecords(stored, framework.KindPackage, func(record *storev1.Package) error {
		ps.Load(record)
		return nil
	})
}

// ends reports whether the work of an app has an end, which its master says.
func (ps *packages) ends(a *app) bool { return a.external() || ps.Ends(a.record.GetSpec()) }

// resources are those of a master of an app.
func (ps *packages) resources(spec *apiv1.AppSpec) resource.Vector {
	v, err := ps.units.read(ps.Resources(spec))
	if err != nil { // it was read when the package was installed
		ps.Fault("the resources of a framework package cannot be read", "package", spec.GetFramework(), "error", err)
	}
	return v
}

// install adds a package, or replaces the one of its name. It was checked and is complete.
func (ps *packages) install(who peer.User, request *apiv1.InstallFrameworkRequest) (*apiv1.Framework, error) {
	given, name := request.GetPackage(), framework.NameOf(request)
	if err := ps.access.MayInstall(who, name, "install"); err != nil {
		return nil, err
	}
	for _, resources := range []*corev1.Resources{given.GetMaster().GetResources(), given.GetCompanion().GetResources()} {
		if _, err := ps.units.read(resources); err != nil {
			return nil, err
		}
	}
	users := ps.users(name)
	if err := ps.Install(who, request, specsOf(users)); err != nil {
		return nil, err
	}
	for _, a := range users {
		// One without a master may have waited for the package; the ask for one may be of another size.
		if a.attemptState() == lifecycle.AttemptScheduled {
			ps.attempts.askForMaster(a, 1)
		}
		ps.apps.touch(a)
	}
	return ps.View(name, len(users))
}

// remove takes a package away that no app has. It returns it as it was.
func (ps *packages) remove(who peer.User, name string) (*apiv1.Framework, error) {
	if err := ps.access.MayInstall(who, name, "remove"); err != nil {
		return nil, err
	}
	return ps.Remove(who, name, specsOf(ps.users(name)))
}

// users are the apps that have a package, in the order of their submission.
func (ps *packages) users(name string) []*app {
	var users []*app
	for a := range ps.apps.all() {
		if framework.Uses(a.record.GetSpec())[name] {
			users = append(users, a)
		}
	}
	slices.SortFunc(users, bySubmission)
	return users
}

func specsOf(apps []*app) []*apiv1.AppSpec {
	specs := make([]*apiv1.AppSpec, 0, len(apps))
	for _, a := range apps {
		specs = append(specs, a.record.GetSpec())
	}
	return specs
}

// view is a package as people see it. They must not change it.
func (ps *packages) view(name string) (*apiv1.Framework, error) {
	return ps.View(name, len(ps.users(name)))
}

// viewAll are all packages, in the order of their names.
func (ps *packages) viewAll() *apiv1.ListFrameworksResponse {
	counts := map[string]int{}
	for a := range ps.apps.all() {
		for name := range framework.Uses(a.record.GetSpec()) {
			counts[name]++
		}
	}
	response := &apiv1.ListFrameworksResponse{}
	for _, name := range ps.Names() {
		if view, err := ps.View(name, counts[name]); err == nil {
			response.Frameworks = append(response.Frameworks, view)
		}
	}
	return response
}
