package zone

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/sentence"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/lifecycle"
)

// maxPackages is how many framework packages a zone may have.
const maxPackages = 100

// builtIn are the framework packages that are part of Mammoth. A zone has each of them that nobody has removed: the record of a removal
// is what is stored. So a zone of before there were packages has them too, and a newer Mammoth brings its newer ones.
func builtIn() map[string]*apiv1.FrameworkPackage {
	return map[string]*apiv1.FrameworkPackage{
		specs.DynamicDeploy: {
			Name:        specs.DynamicDeploy,
			Description: "keeps instances of images running, and replaces them version by version",
			Master:      &apiv1.MasterKind{Command: []string{"mammoth", "appmaster", "dynamicdeploy"}, Resources: specs.MasterResources(), Previews: true},
		},
	}
}

// packages are the framework packages that are installed: how the masters of apps are started, whether their work has an end, and which
// companions there are.
type packages struct {
	*turn
	config   *config
	access   *access.Rules
	units    *units
	apps     *apps
	attempts *attempts
	// builtIn are those that are part of Mammoth. byName has the records, also those of built-in ones that were removed.
	builtIn map[string]*apiv1.FrameworkPackage
	byName  map[string]*storev1.Package
}

func (ps *packages) load(stored Records) error {
	return loadRecords(stored, kindPackage, func(record *storev1.Package) error {
		ps.byName[record.GetPackage().GetName()] = record
		return nil
	})
}

// named is the package with a name; nil if it is not installed.
func (ps *packages) named(name string) *apiv1.FrameworkPackage {
	record, stored := ps.byName[name]
	switch {
	case record.GetRemoved():
		return nil
	case stored:
		return record.GetPackage()
	}
	return ps.builtIn[name]
}

// of is the package of an app; nil if it is not installed, or if the app's master is outside of the zone.
func (ps *packages) of(spec *apiv1.AppSpec) *apiv1.FrameworkPackage {
	return ps.named(spec.GetFramework())
}

// ends reports whether the work of an app has an end, which its master says.
func (ps *packages) ends(a *app) bool {
	return a.external() || ps.of(a.record.GetSpec()).GetMaster().GetEnds()
}

// resources are those of a master of an app.
func (ps *packages) resources(spec *apiv1.AppSpec) resource.Vector {
	kind := ps.of(spec).GetMaster().GetResources()
	if kind == nil {
		kind = specs.MasterResources()
	}
	v, err := ps.units.read(kind)
	if err != nil { // it was read when the package was installed
		ps.Fault("the resources of a framework package cannot be read", "package", spec.GetFramework(), "error", err)
	}
	return v
}

// container is what a node launches as the master of an app, with more in its environment; nil if the package is not installed.
func (ps *packages) container(a *app, env map[string]string) *corev1.ContainerSpec {
	kind := ps.of(a.record.GetSpec()).GetMaster()
	if kind == nil {
		return nil
	}
	spec := &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_PROCESS, Command: kind.GetCommand(), Args: kind.GetArgs(), Env: map[string]string{},
		Labels: map[string]string{"mammoth.role": "master"},
	}
	if kind.GetImage() != "" {
		// It has to reach the ResourceManager and the nodes.
		spec.Runtime, spec.Image, spec.Network = corev1.ContainerSpec_DOCKER, specs.Pinned(kind.GetImage(), kind.GetImageDigest()), corev1.ContainerSpec_HOST
	}
	maps.Copy(spec.Env, kind.GetEnv())
	maps.Copy(spec.Env, env)
	return spec
}

// check refuses a spec whose framework is not installed, or that runs the companion of one that is not.
func (ps *packages) check(spec *apiv1.AppSpec) error {
	switch p := ps.of(spec); {
	case p == nil:
		return fmt.Errorf("%s: %w", ps.notInstalled(spec), errdefs.ErrFailedPrecondition)
	case p.GetMaster() == nil:
		return fmt.Errorf("the framework package %s brings a companion and no application master; take the framework out, and run it with \"kind: companion\" and \"companion: %s\": %w",
			p.GetName(), p.GetName(), errdefs.ErrFailedPrecondition)
	}
	for _, role := range spec.GetRoles() {
		if name := role.GetCompanion().GetPackage(); name != "" && ps.named(name).GetCompanion() == nil {
			return fmt.Errorf("%s: %w", specs.NoCompanion(name, ps.named(name)), errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// uses are the packages that an app has: that of its master, and those of its companions.
func uses(spec *apiv1.AppSpec) map[string]bool {
	used := map[string]bool{}
	if framework := spec.GetFramework(); framework != "" {
		used[framework] = true
	}
	for _, role := range spec.GetRoles() {
		if companion := role.GetCompanion(); companion != nil {
			used[companion.GetPackage()] = true
		}
	}
	return used
}

// checkParts refuses a package without a part that an app has.
func (ps *packages) checkParts(given *apiv1.FrameworkPackage) error {
	for _, a := range ps.users(given.GetName()) {
		spec, part := a.record.GetSpec(), ""
		switch {
		case spec.GetFramework() == given.GetName() && given.GetMaster() == nil:
			part = "application master"
		case given.GetCompanion() == nil && slices.ContainsFunc(spec.GetRoles(), func(r *apiv1.RoleSpec) bool { return r.GetCompanion().GetPackage() == given.GetName() }):
			part = "companion"
		default:
			continue
		}
		return fmt.Errorf("the app %s has the %s that the package does not bring any more; remove the app first: %w", a.record.GetName(), part, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// notInstalled says that the framework of a spec is missing, and what to do.
func (ps *packages) notInstalled(spec *apiv1.AppSpec) string {
	from := "FILE"
	if ps.builtIn[spec.GetFramework()] != nil {
		from = spec.GetFramework()
	}
	return fmt.Sprintf("the framework %s is not installed in this zone; \"mammoth framework install %s\" installs it", spec.GetFramework(), from)
}

// install adds a package, or replaces the one of its name. It was checked and is complete.
func (ps *packages) install(who peer.User, request *apiv1.InstallFrameworkRequest) (*apiv1.Framework, error) {
	given, name := request.GetPackage(), request.GetPackage().GetName()
	if request.GetBuiltIn() != "" {
		name = request.GetBuiltIn()
	}
	if err := ps.access.MayInstall(who, name, "install"); err != nil {
		return nil, err
	}
	before := ps.named(name)
	if given == nil {
		if ps.builtIn[name] == nil {
			return nil, fmt.Errorf("no framework named %q is part of Mammoth; %s is, and others are installed from a file: %w", name, specs.DynamicDeploy, errdefs.ErrNotFound)
		}
		delete(ps.byName, name)
		ps.Forget(kindPackage, name)
	} else {
		for _, resources := range []*corev1.Resources{given.GetMaster().GetResources(), given.GetCompanion().GetResources()} {
			if _, err := ps.units.read(resources); err != nil {
				return nil, err
			}
		}
		if err := ps.checkParts(given); err != nil {
			return nil, err
		}
		if before == nil && len(ps.names()) >= maxPackages {
			return nil, fmt.Errorf("a zone has %d framework packages at most; remove one that no app has, see \"mammoth framework ls\": %w", maxPackages, errdefs.ErrResourceExhausted)
		}
		ps.byName[name] = &storev1.Package{Package: given, InstalledAt: timestamppb.New(ps.now), User: who.Name}
		ps.Save(kindPackage, name, ps.byName[name])
	}
	if before == nil || !proto.Equal(before, ps.named(name)) {
		ps.Emit(&apiv1.Event{Kind: "zone", To: "FRAMEWORK_INSTALLED", Message: fmt.Sprintf("%s installed the framework package %s", access.ByWhom(who), versioned(ps.named(name)))})
	}
	for _, a := range ps.users(name) {
		// One without a master may have waited for the package; the ask for one may be of another size.
		if a.attemptState() == lifecycle.AttemptScheduled {
			ps.attempts.askForMaster(a, 1)
		}
		ps.apps.touch(a)
	}
	return ps.view(name)
}

// remove takes a package away that no app has. It returns it as it was.
func (ps *packages) remove(who peer.User, name string) (*apiv1.Framework, error) {
	if err := ps.access.MayInstall(who, name, "remove"); err != nil {
		return nil, err
	}
	view, err := ps.view(name)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, a := range ps.users(name) {
		users = append(users, a.record.GetName())
	}
	if len(users) > 0 {
		return nil, fmt.Errorf("the framework package %s is in use by %s; remove %s first: %w", name, sentence.Names(users), itOrThem(len(users)), errdefs.ErrFailedPrecondition)
	}
	delete(ps.byName, name)
	ps.Forget(kindPackage, name)
	if ps.builtIn[name] != nil {
		ps.byName[name] = &storev1.Package{Package: &apiv1.FrameworkPackage{Name: name}, Removed: true}
		ps.Save(kindPackage, name, ps.byName[name])
	}
	ps.Emit(&apiv1.Event{Kind: "zone", To: "FRAMEWORK_REMOVED", Message: fmt.Sprintf("%s removed the framework package %s", access.ByWhom(who), versioned(view.GetPackage()))})
	return view, nil
}

func itOrThem(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

func versioned(p *apiv1.FrameworkPackage) string {
	if p.GetVersion() == "" {
		return p.GetName()
	}
	return p.GetName() + " " + p.GetVersion()
}

// users are the apps that have a package, in the order of their submission.
func (ps *packages) users(name string) []*app {
	var users []*app
	for a := range ps.apps.all() {
		if uses(a.record.GetSpec())[name] {
			users = append(users, a)
		}
	}
	slices.SortFunc(users, bySubmission)
	return users
}

// counts are how many apps have each package.
func (ps *packages) counts() map[string]int32 {
	counts := map[string]int32{}
	for a := range ps.apps.all() {
		for name := range uses(a.record.GetSpec()) {
			counts[name]++
		}
	}
	return counts
}

// names are those of the installed packages, in their order.
func (ps *packages) names() []string {
	names := sortedKeys(ps.byName)
	for name := range ps.builtIn {
		if ps.byName[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return ps.named(name) == nil })
}

// view is a package as people see it. They must not change it.
func (ps *packages) view(name string) (*apiv1.Framework, error) { return ps.counted(name, ps.counts()) }

func (ps *packages) counted(name string, apps map[string]int32) (*apiv1.Framework, error) {
	p := ps.named(name)
	if p == nil {
		return nil, fmt.Errorf("no framework package is named %q; \"mammoth framework ls\" lists those that are installed: %w", name, errdefs.ErrNotFound)
	}
	view := &apiv1.Framework{Package: p, Apps: apps[name], BuiltIn: ps.builtIn[name] != nil}
	if record := ps.byName[name]; record != nil {
		view.InstalledAt, view.User = record.GetInstalledAt(), record.GetUser()
	} else {
		view.InstalledAt = timestamppb.New(ps.config.identity.ClusterStart)
	}
	return view, nil
}

// viewAll are all packages, in the order of their names.
func (ps *packages) viewAll() *apiv1.ListFrameworksResponse {
	response, apps := &apiv1.ListFrameworksResponse{}, ps.counts()
	for _, name := range ps.names() {
		if view, err := ps.counted(name, apps); err == nil {
			response.Frameworks = append(response.Frameworks, view)
		}
	}
	return response
}

// imageUnused refuses to take a name from an image that a package uses by that name.
func (ps *packages) imageUnused(name, digest string) error {
	for _, framework := range sortedKeys(ps.byName) {
		p := ps.byName[framework].GetPackage()
		has := func(image, of string) bool { return of == digest && digest != "" && tagged(image) == tagged(name) }
		if has(p.GetMaster().GetImage(), p.GetMaster().GetImageDigest()) || has(p.GetCompanion().GetImage(), p.GetCompanion().GetImageDigest()) {
			return fmt.Errorf("the framework package %s uses image %s; remove the package, or install it with another image, first: %w", framework, name, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}
