package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// readAtOnce is how many manifests are parsed at a time. A malicious one of 1 MiB takes seconds of a core, and the rest of the
// ResourceManager must not be without one.
const readAtOnce = 2

// parse parses a manifest once fewer than readAtOnce are being parsed. The error is of type manifest.Errors, or the cause of ctx.
func (s *apps) parse(ctx context.Context, text []byte) (*manifest.App, error) {
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-s.reading }()
	return manifest.ParseApp(text)
}

// read parses the manifest of a request and completes its spec. The error is a status with all mistakes of the manifest.
func (s *apps) read(ctx context.Context, request *apiv1.DeployRequest) (*manifest.App, error) {
	file, err := s.parse(ctx, request.GetManifest())
	var mistakes manifest.Errors
	switch {
	case err != nil && !errors.As(err, &mistakes):
		return nil, wire.Status(err)
	case file == nil:
		return nil, refuseManifest(err, errdefs.ErrInvalidArgument)
	}
	app := file.Spec
	for _, role := range app.GetRoles() {
		if name, ok := request.GetImages()[role.GetImage()]; ok {
			role.Image = name
		}
	}
	found := s.takeCompanions(ctx, app)
	spec.Complete(app)
	class := error(errdefs.ErrInvalidArgument)
	if len(app.GetRoles()) <= spec.MaxRoles {
		found = append(found, s.lookUp(ctx, app)...)
		if err == nil && len(found) > 0 {
			class = found[0].err
		}
		file.Fail(faultsOf(found))
	}
	if err := file.Err(); err != nil {
		return nil, refuseManifest(err, class)
	}
	// Now everything that the spec leaves to its images is filled in.
	spec.Complete(app)
	var faults spec.Faults
	if errors.As(spec.Check(app), &faults) {
		file.Fail(faults)
		return nil, refuseManifest(file.Err(), faults)
	}
	return file, nil
}

func faultsOf(found []finding) spec.Faults {
	var faults spec.Faults
	for _, one := range found {
		faults = append(faults, one.Fault)
	}
	return faults
}

// refuseManifest converts mistakes of a manifest to an error of a class.
func refuseManifest(err, class error) error {
	var mistakes manifest.Errors
	errors.As(err, &mistakes)
	detail := &apiv1.ManifestMistakes{}
	for _, mistake := range mistakes {
		detail.Mistakes = append(detail.Mistakes, &apiv1.ManifestMistakes_Mistake{
			Line: int32(mistake.Line), Column: int32(mistake.Column), Message: wire.Text(mistake.Message),
		})
	}
	refusal := status.Convert(wire.Status(fmt.Errorf("%w: %w", mistakes, errdefs.ErrInvalidArgument))).Proto()
	refusal.Code = int32(status.Code(wire.Status(class)))
	detailed, err := status.FromProto(refusal).WithDetails(detail)
	if err != nil {
		return wire.Status(err)
	}
	return detailed.Err()
}
