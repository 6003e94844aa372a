package service

import (
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Complete checks a spec and sets all defaults, so that later readers see the values in force. Only the number of instances
// is left to the loop, which knows the present one. An error is one sentence with what to do.
func Complete(app *apiv1.AppSpec) error {
	spec.Complete(app)
	return named(app, spec.Check(app))
}

// completeDraft is Complete for a spec whose images were not looked up.
func completeDraft(app *apiv1.AppSpec) error {
	if app == nil {
		return invalid("there is nothing to deploy: a manifest is needed, or a spec")
	}
	spec.Complete(app)
	return named(app, spec.CheckDraft(app))
}

// named adds the app's name to the error of a check.
func named(app *apiv1.AppSpec, err error) error {
	if err != nil {
		var faults spec.Faults
		if errors.As(err, &faults) && slices.Equal(faults[0].Key, []string{"name"}) {
			return err
		}
		return fmt.Errorf("app %s: %w", app.GetName(), err)
	}
	return nil
}

func checkNetwork(role *apiv1.RoleSpec, allowed bool) error {
	if role.GetNetwork() == corev1.ContainerSpec_HOST && !allowed {
		return fmt.Errorf("the operator of this zone does not allow the host's network; use the bridge network: %w", errdefs.ErrPermissionDenied)
	}
	return nil
}

func checkCount(instances int32) error {
	return spec.CheckInstances(&apiv1.AppSpec{Roles: []*apiv1.RoleSpec{{Instances: instances}}})
}

func invalid(format string, arguments ...any) error {
	return fmt.Errorf(format+": %w", append(arguments, errdefs.ErrInvalidArgument)...)
}
