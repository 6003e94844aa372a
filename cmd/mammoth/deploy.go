package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/defaults"
	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// deploymentCommands deploy manifests and images, and show what a deployment would do.
type deploymentCommands struct {
	*changer
	uploads *uploader
	in      io.Reader
}

// deploy deploys what is named by source.
func (c *deploymentCommands) deploy(ctx context.Context, named string, f *deployFlags, change func(*apiv1.AppSpec) error) error {
	source, err := openSource(c.in, named)
	if err != nil {
		return err
	}
	if f.file != "" && source.manifest == nil {
		if _, err := os.Stat(named); err != nil && named != "-" {
			return usageError{plainPathError(err)}
		}
		return usagef("%s is no manifest; an image is deployed by `mammoth deploy %s`, without -f", source.title(), named)
	}
	if source.manifest != nil {
		return c.deployManifest(ctx, source, f, change)
	}
	// Whatever is wrong with the flags alone is told before anything is uploaded.
	if err := change(&apiv1.AppSpec{Name: cmp.Or(f.name, "trial"), Roles: []*apiv1.RoleSpec{trial(f)}}); err != nil {
		return err
	}
	return c.with(ctx, func(z *zone) error {
		image, err := c.imageOf(ctx, source)
		if err != nil {
			return err
		}
		name := f.name
		if name == "" {
			name = nameOfImage(image)
			if err := spec.CheckName("an app", name); err != nil {
				return usagef("the image's name does not do for the app; give it one with --name (%w)", err)
			}
		}
		return c.deployImage(ctx, z, name, image, f, change)
	})
}

// deployManifest uploads the image files that a manifest names, and sends the manifest as it is written. With flags that win over it,
// the spec that comes of both is sent.
func (c *deploymentCommands) deployManifest(ctx context.Context, source source, f *deployFlags, change func(*apiv1.AppSpec) error) error {
	app, err := source.app()
	if err != nil {
		return err
	}
	if f.name != "" {
		app.Name = f.name
	}
	if err := change(app); err != nil {
		return err
	}
	return c.with(ctx, func(z *zone) error {
		images := map[string]string{}
		for _, role := range app.GetRoles() {
			named := role.GetImage()
			if named == "" {
				continue // a companion app's program
			}
			if images[named] == "" {
				beside := named
				if !filepath.IsAbs(beside) {
					beside = filepath.Join(source.folder, beside)
				}
				if images[named], err = c.uploads.resolveImage(ctx, named, beside); err != nil {
					return err
				}
			}
			role.Image = images[named]
		}
		request := &apiv1.DeployRequest{Manifest: source.manifest, Images: images, IfGeneration: -1}
		if f.edited {
			request = &apiv1.DeployRequest{Spec: app, IfGeneration: -1}
		}
		return source.mistakes(c.send(ctx, z, deployment{request, app, f}))
	})
}

// trial is a role for a check of the flags; a port that is named may be one that the app has already.
func trial(f *deployFlags) *apiv1.RoleSpec {
	role := defaults.Role()
	role.Name, role.Image = f.role, "trial"
	check, err := manifest.ParseHealth(f.health)
	if err != nil || len(f.ports) > 0 {
		return role
	}
	port := "http"
	if named := check.GetHttp().GetPort() + check.GetTcp().GetPort(); named != "" {
		port = named
	}
	role.Ports = []*corev1.Port{{Name: port, ContainerPort: 1}}
	return role
}

// attempts is how often a change is tried again when somebody else changed the app meanwhile.
const attempts = 5

// deployImage makes an app of an image, or changes what was given of the app that is there.
func (c *deploymentCommands) deployImage(ctx context.Context, z *zone, name, image string, f *deployFlags, change func(*apiv1.AppSpec) error) error {
	for attempt := 1; ; attempt++ {
		app, err := z.apps.GetApp(asSent(ctx), &apiv1.GetAppRequest{Name: name})
		request := &apiv1.DeployRequest{}
		switch {
		case err == nil:
			request.Spec = proto.Clone(app.GetSpec()).(*apiv1.AppSpec)
			request.IfGeneration = app.GetGeneration()
		case errdefs.IsNotFound(wire.Error(err)):
			if f.role != "" {
				return usagef("no app is named %q; --role names a role of an app that is there", name)
			}
			request.Spec = &apiv1.AppSpec{Name: name, Roles: []*apiv1.RoleSpec{defaults.Role()}}
		default:
			return err
		}
		chosen, err := f.pick(request.GetSpec())
		if err != nil {
			return err
		}
		chosen.Image, chosen.ImageDigest = image, ""
		if err := change(request.GetSpec()); err != nil {
			return err
		}
		for _, role := range request.GetSpec().GetRoles() {
			if app != nil && len(role.GetSchedule()) > 0 && (role != chosen || !f.counted) {
				role.Instances = 0 // no number was given: the calendar's stands
			}
		}
		err = c.send(ctx, z, deployment{request, request.GetSpec(), f})
		if class := wire.Error(err); attempt < attempts && (errdefs.IsAborted(class) || errdefs.IsAlreadyExists(class)) {
			continue
		}
		return err
	}
}

// deployment is a request with the spec that it comes to, as far as that is known here.
type deployment struct {
	request *apiv1.DeployRequest
	asked   *apiv1.AppSpec
	flags   *deployFlags
}

// send deploys, tells what came of it, and waits if it was asked to.
func (c *deploymentCommands) send(ctx context.Context, z *zone, d deployment) error {
	d.request.DryRun, d.request.Diff = d.flags.dryRun, d.flags.diff
	answer, err := z.apps.Deploy(ctx, d.request)
	if err != nil {
		return err
	}
	c.sayPorts(d.asked, answer.GetApp().GetSpec())
	switch {
	case d.flags.diff:
		return c.printDiff(d.asked.GetName(), answer)
	case d.flags.dryRun:
		return c.print(answer, func(w io.Writer) error { return dryRunTable(w, d.asked.GetName(), answer) })
	}
	if d.flags.canary != "" && answer.GetApp().GetVersion() == 1 {
		fmt.Fprintf(c.err, "%s is new: no version before takes the rest of the requests, so it is started whole\n", answer.GetApp().GetName())
	}
	return c.finish(ctx, z, change{app: answer.GetApp(), what: "deployment", done: rolledOut}, &d.flags.wait)
}

// sayPorts tells on which ports an app listens because its image says so, and nobody else did.
func (c *deploymentCommands) sayPorts(asked, taken *apiv1.AppSpec) {
	for i, role := range taken.GetRoles() {
		if len(role.GetPorts()) == 0 || i >= len(asked.GetRoles()) || len(asked.GetRoles()[i].GetPorts()) > 0 {
			continue
		}
		ports := make([]string, len(role.GetPorts()))
		for i, port := range role.GetPorts() {
			ports[i] = fmt.Sprintf("%s=%d", port.GetName(), port.GetContainerPort())
		}
		fmt.Fprintf(c.err, "no port was named; the app has those that the image %s exposes: %s\n", role.GetImage(), strings.Join(ports, ", "))
	}
}

// imageOf uploads the image that is deployed, or names that of the store.
func (c *deploymentCommands) imageOf(ctx context.Context, s source) (string, error) {
	if s.archive != nil {
		return uploaded(s.named)(c.uploads.push(ctx, upload{path: s.named, content: s.archive}))
	}
	return c.uploads.resolveImage(ctx, s.named, s.named)
}

// inFile puts the file's name before each mistake.
func inFile(path string, err error) error {
	var mistakes manifest.Errors
	if !errors.As(err, &mistakes) {
		return fmt.Errorf("%s: %w", path, err)
	}
	lines := make([]string, len(mistakes))
	for i, mistake := range mistakes {
		lines[i] = path + ": " + mistake.Error()
	}
	return errors.New(strings.Join(lines, "\n"))
}

// plainPathError says "web.yaml: no such file or directory" without the name of the system call. A longer sentence stays.
func plainPathError(err error) error {
	var path *os.PathError
	if errors.As(err, &path) && err.Error() == path.Error() {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}

// nameOfImage is the last word of an image's name, without its tag.
func nameOfImage(image string) string {
	name := image[strings.LastIndex(image, "/")+1:]
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// defaultWait is how long --wait waits unless told otherwise: longer than a rollout may stand still.
const defaultWait = 10 * time.Minute
