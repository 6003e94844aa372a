package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
)

// Deploy implements apiv1.AppsServer.
func (s *apps) Deploy(ctx context.Context, request *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	app, file, err := s.wanted(ctx, request)
	if err != nil {
		return nil, err
	}
	deployment := &apiv1.DeployRequest{Spec: app, DryRun: request.GetDryRun(), IfGeneration: request.GetIfGeneration()}
	var response *apiv1.DeployResponse
	switch {
	case request.GetDiff():
		response, err = s.diff(ctx, deployment)
	case request.GetValidate():
		response, err = s.validate(ctx, deployment)
	default:
		response, err = s.loop.Deploy(ctx, deployment)
	}
	if file != nil && errdefs.IsNotFound(err) {
		file.Fail(spec.Faults{{Key: []string{"queue"}, Sentence: wire.Sentence(err)}})
		return nil, refuseManifest(file.Err(), err)
	}
	if err == nil && deployment.GetDryRun() && !request.GetValidate() {
		err = s.preview(ctx, response)
	}
	return response, wire.Status(err)
}

// preview adds the preview of the app's master to a dry run, if it runs and its framework's masters know the command.
func (s *apps) preview(ctx context.Context, response *apiv1.DeployResponse) error {
	app := response.GetApp()
	if app.GetState() != apiv1.App_RUNNING || response.GetUnchanged() {
		return nil
	}
	framework, err := s.frameworks.Framework(ctx, app.GetSpec().GetFramework())
	if err != nil || !framework.GetPackage().GetMaster().GetPreviews() {
		return ctx.Err()
	}
	command, err := anypb.New(&apiv1.Preview{Spec: app.GetSpec()})
	if err != nil {
		return fmt.Errorf("encode a preview: %w", err)
	}
	answer, err := s.loop.Command(ctx, &apiv1.CommandAppRequest{Name: app.GetName(), Command: command})
	previewed := &apiv1.Previewed{}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errdefs.IsAborted(err):
		previewed.Summary = "what would become of its instances is not known: its application master does not answer"
	case err != nil:
		previewed.Summary = "what would become of its instances is not known: " + wire.Sentence(err)
	case !answer.GetAnswer().MessageIs(previewed) || answer.GetAnswer().UnmarshalTo(previewed) != nil:
		previewed.Summary = "what would become of its instances is not known: its application master does not say"
	}
	response.Preview = previewed
	response.Explanation.Summary += "; " + previewed.GetSummary()
	return nil
}

// wanted returns the complete spec of a deployment, and its manifest, nil if it has none. The error has a status.
func (s *apps) wanted(ctx context.Context, request *apiv1.DeployRequest) (*apiv1.AppSpec, *manifest.App, error) {
	switch {
	case len(request.GetManifest()) > 0 && request.GetSpec() != nil:
		return nil, nil, wire.Status(invalid("a deployment has a manifest or a spec, not both"))
	case len(request.GetManifest()) > 0:
		file, err := s.read(ctx, request)
		if err != nil {
			return nil, nil, err
		}
		return file.Spec, file, nil
	}
	if request.GetSpec().GetKind() == apiv1.AppSpec_EXTERNAL {
		return nil, nil, wire.Status(invalid("an app whose application master is outside of the zone is not deployed; \"mammoth app run\" starts it"))
	}
	app := proto.CloneOf(request.GetSpec())
	return app, nil, wire.Status(s.complete(ctx, app))
}

// complete checks a spec, sets its defaults, and resolves its images.
func (s *apps) complete(ctx context.Context, app *apiv1.AppSpec) error {
	if found := s.takeCompanions(ctx, app); len(found) > 0 {
		return found[0].err
	}
	if err := completeDraft(app); err != nil {
		return err
	}
	if found := s.lookUp(ctx, app); len(found) > 0 {
		return found[0].err
	}
	return Complete(app)
}

// A finding is a fault of a spec that only the zone can find, with the class that it has.
type finding struct {
	spec.Fault
	err error
}

// lookUp resolves the images of a spec and fills in what it leaves to them. It returns what this zone does not have or allow.
func (s *apps) lookUp(ctx context.Context, app *apiv1.AppSpec) []finding {
	found := s.checkFramework(ctx, app)
	for _, role := range app.GetRoles() {
		fail := func(key string, err error) {
			found = append(found, finding{spec.Fault{Role: role.GetName(), Key: []string{key}, Sentence: wire.Sentence(err)}, err})
		}
		if err := checkNetwork(role, s.hostNetwork); err != nil {
			fail("network", err)
		}
		if role.GetImage() == "" {
			continue
		}
		digest, config, err := s.images.Resolve(ctx, role.GetImage())
		if err != nil {
			fail("image", err)
			continue
		}
		if !hasCommand(role, config) {
			key := "image"
			if len(role.GetCommand()) > 0 {
				key = "command"
			}
			fail(key, fmt.Errorf("image %q has no command; set one in the manifest: %w", role.GetImage(), errdefs.ErrInvalidArgument))
		}
		if err := config.CheckUser(role.GetUser()); err != nil {
			fail("user", err)
		}
		if err := config.CheckWorkingDir(role.GetWorkingDir()); err != nil {
			fail("workingDir", err)
		}
		role.ImageDigest = digest
		if app.GetKind() == apiv1.AppSpec_APP {
			spec.TakePorts(role, config.ExposedPorts)
		}
	}
	return found
}

// checkFramework checks an app's options with the schema of its framework. The loop reports a framework that does not exist.
func (s *apps) checkFramework(ctx context.Context, app *apiv1.AppSpec) []finding {
	framework, err := s.frameworks.Framework(ctx, app.GetFramework())
	if err != nil {
		return nil
	}
	schema, err := schemaOf(framework.GetPackage())
	if err != nil {
		return []finding{{spec.Fault{Key: []string{"framework"}, Sentence: wire.Sentence(err)}, err}}
	}
	var found []finding
	for _, fault := range schema.check(app.GetOptions()) {
		found = append(found, finding{fault, spec.Faults{fault}})
	}
	return found
}

// takeCompanions fills in what roles leave to the framework packages whose companions they run, in a spec that is not complete yet. It
// returns what this zone does not have, and options that do not fit.
func (s *apps) takeCompanions(ctx context.Context, app *apiv1.AppSpec) []finding {
	if app.GetKind() != apiv1.AppSpec_COMPANION || len(app.GetRoles()) > spec.MaxRoles {
		return nil // that is refused, whatever the companions are
	}
	var found []finding
	for _, role := range app.GetRoles() {
		if role.GetCompanion() == nil {
			continue
		}
		for _, one := range s.takeCompanion(ctx, role) {
			one.Role = role.GetName()
			found = append(found, one)
		}
	}
	return found
}

func (s *apps) takeCompanion(ctx context.Context, role *apiv1.RoleSpec) []finding {
	name := role.GetCompanion().GetPackage()
	framework, err := s.frameworks.Framework(ctx, name)
	if p := framework.GetPackage(); errdefs.IsNotFound(err) || err == nil && p.GetCompanion() == nil {
		err = fmt.Errorf("%s: %w", spec.NoCompanion(name, p), errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return []finding{{spec.Fault{Key: []string{"companion", name}, Sentence: wire.Sentence(err)}, err}}
	}
	schema, err := companionSchemaOf(framework.GetPackage())
	if err != nil {
		return []finding{{spec.Fault{Key: []string{"companion", name}, Sentence: wire.Sentence(err)}, err}}
	}
	faults := schema.check(role.GetCompanion().GetOptions())
	var unread spec.Faults
	if len(faults) == 0 && errors.As(spec.RunCompanion(role, framework.GetPackage()), &unread) {
		faults = unread
	}
	var found []finding
	for _, fault := range faults {
		found = append(found, finding{fault, spec.Faults{fault}})
	}
	return found
}

// hasCommand reports whether a role and its image have a command to run.
func hasCommand(role *apiv1.RoleSpec, image images.Config) bool {
	if args, given := spec.Args(role); given {
		image.Cmd = args
	}
	if len(role.GetCommand()) > 0 {
		image.Entrypoint = role.GetCommand()
	}
	return image.HasCommand()
}

// validate makes the zone check a deployment without making it, whatever generation the app has.
func (s *apps) validate(ctx context.Context, deployment *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	deployment.DryRun = true
	if deployment.GetIfGeneration() == 0 {
		deployment.IfGeneration = -1
	}
	response, err := s.loop.Deploy(ctx, deployment)
	if err != nil {
		return nil, err
	}
	return &apiv1.DeployResponse{App: response.GetApp()}, nil
}

// diff is a dry run with the changes to the app. Both refer to the same generation of the app.
func (s *apps) diff(ctx context.Context, deployment *apiv1.DeployRequest) (*apiv1.DeployResponse, error) {
	deployment.DryRun = true
	asked := deployment.GetIfGeneration()
	for {
		var before *apiv1.App
		switch view, err := s.loop.App(deployment.GetSpec().GetName()); {
		case err == nil:
			before = view.App
		case !errdefs.IsNotFound(err):
			return nil, err
		}
		if asked <= 0 {
			deployment.IfGeneration = before.GetGeneration()
		}
		response, err := s.loop.Deploy(ctx, deployment)
		switch {
		case err == nil:
			response.Diff = manifest.Diff(before.GetSpec(), response.GetApp().GetSpec())
			return response, nil
		case asked > 0 || !errdefs.IsAborted(err) && !errdefs.IsAlreadyExists(err):
			return nil, err
		}
		// The app has changed in between.
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}
