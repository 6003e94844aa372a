package service

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Frameworks is the part of the loop for framework packages. What it returns must not be changed.
type Frameworks interface {
	// InstallFramework needs a package that was checked and is complete, or the name of a built-in one.
	InstallFramework(ctx context.Context, request *apiv1.InstallFrameworkRequest) (*apiv1.Framework, error)
	Frameworks(ctx context.Context) (*apiv1.ListFrameworksResponse, error)
	Framework(ctx context.Context, name string) (*apiv1.Framework, error)
	RemoveFramework(ctx context.Context, name string) (*apiv1.Framework, error)
}

type frameworks struct {
	apiv1.UnimplementedFrameworksServer
	loop        Frameworks
	apps        Apps
	images      Images
	hostNetwork bool
}

func (s *frameworks) InstallFramework(ctx context.Context, request *apiv1.InstallFrameworkRequest) (*apiv1.Framework, error) {
	switch {
	case request.GetPackage() == nil && request.GetBuiltIn() == "":
		return nil, wire.Status(invalid("there is nothing to install: a package is needed, or the name of one that is part of Mammoth"))
	case request.GetPackage() != nil && request.GetBuiltIn() != "":
		return nil, wire.Status(invalid("an installation has a package or the name of one that is part of Mammoth, not both"))
	}
	request = proto.CloneOf(request)
	if request.GetPackage() != nil {
		if err := s.complete(ctx, request.GetPackage()); err != nil {
			return nil, wire.Status(err)
		}
	}
	framework, err := s.loop.InstallFramework(ctx, request)
	return framework, wire.Status(err)
}

// complete checks a package, sets its defaults, and resolves its image.
func (s *frameworks) complete(ctx context.Context, p *apiv1.FrameworkPackage) error {
	spec.CompletePackage(p)
	if err := spec.CheckPackage(p); err != nil {
		return fmt.Errorf("framework %s: %w", p.GetName(), err)
	}
	options, err := schemaOf(p)
	if err != nil {
		return fmt.Errorf("framework %s: %w", p.GetName(), err)
	}
	companion, err := companionSchemaOf(p)
	if err != nil {
		return fmt.Errorf("framework %s: %w", p.GetName(), err)
	}
	if err := s.checkImage(ctx, p.GetMaster()); err != nil {
		return fmt.Errorf("framework %s: %w", p.GetName(), err)
	}
	if err := s.checkCompanionImage(ctx, p.GetCompanion()); err != nil {
		return fmt.Errorf("framework %s: %w", p.GetName(), err)
	}
	for token := ""; ; {
		page, err := s.apps.ListApps(&apiv1.ListAppsRequest{PageToken: token})
		if err != nil {
			return err
		}
		for _, view := range page.Apps {
			app := view.App.GetSpec()
			var faults spec.Faults
			if app.GetFramework() == p.GetName() && p.GetMaster() != nil {
				faults = options.check(app.GetOptions())
			}
			for _, role := range app.GetRoles() {
				if role.GetCompanion().GetPackage() == p.GetName() && p.GetCompanion() != nil {
					faults = append(faults, companion.check(role.GetCompanion().GetOptions())...)
				}
			}
			if len(faults) > 0 {
				return fmt.Errorf("the app %s would not fit the package any more: %s; deploy it with other options first, or remove it: %w",
					app.GetName(), faults.Error(), errdefs.ErrFailedPrecondition)
			}
		}
		if token = page.Next; token == "" {
			return nil
		}
	}
}

func (s *frameworks) checkImage(ctx context.Context, master *apiv1.MasterKind) error {
	if master == nil {
		return nil
	}
	master.ImageDigest = ""
	if master.GetImage() == "" {
		return nil
	}
	if !s.hostNetwork {
		return fmt.Errorf("a master that is an image has its node's own network, which the operator of this zone does not allow; give the package a command of the nodes, or start the daemons with --allow-host-network: %w",
			errdefs.ErrPermissionDenied)
	}
	digest, err := s.resolve(ctx, &apiv1.RoleSpec{Image: master.GetImage(), Command: master.GetCommand()}, master.GetArgs())
	master.ImageDigest = digest
	return err
}

func (s *frameworks) checkCompanionImage(ctx context.Context, companion *apiv1.CompanionKind) error {
	if companion == nil {
		return nil
	}
	companion.ImageDigest = ""
	if companion.GetImage() == "" {
		return nil
	}
	digest, err := s.resolve(ctx, &apiv1.RoleSpec{Image: companion.GetImage(), Command: companion.GetCommand()}, companion.GetArgs())
	companion.ImageDigest = digest
	return err
}

// resolve is the digest of the image of a role with such arguments. The image has to have a command, or the role.
func (s *frameworks) resolve(ctx context.Context, role *apiv1.RoleSpec, args []string) (string, error) {
	digest, config, err := s.images.Resolve(ctx, role.GetImage())
	if err != nil {
		return "", err
	}
	if len(args) > 0 {
		spec.SetArgs(role, args)
	}
	if !hasCommand(role, config) {
		return "", fmt.Errorf("image %q has no command; set one in the package: %w", role.GetImage(), errdefs.ErrInvalidArgument)
	}
	return digest, nil
}

func (s *frameworks) ListFrameworks(ctx context.Context, _ *apiv1.ListFrameworksRequest) (*apiv1.ListFrameworksResponse, error) {
	list, err := s.loop.Frameworks(ctx)
	return list, wire.Status(err)
}

func (s *frameworks) GetFramework(ctx context.Context, request *apiv1.GetFrameworkRequest) (*apiv1.Framework, error) {
	framework, err := s.loop.Framework(ctx, request.GetName())
	return framework, wire.Status(err)
}

func (s *frameworks) RemoveFramework(ctx context.Context, request *apiv1.GetFrameworkRequest) (*apiv1.Framework, error) {
	framework, err := s.loop.RemoveFramework(ctx, request.GetName())
	return framework, wire.Status(err)
}
