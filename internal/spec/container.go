package spec

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// CheckContainer checks the spec of a container, as a node receives it, by the rules for the role of an app. The error is of type
// Faults. Fields that are not set have their defaults. The node checks the runtime and the network.
func CheckContainer(container *corev1.ContainerSpec) error {
	kind := apiv1.AppSpec_APP
	if container.GetRuntime() == corev1.ContainerSpec_PROCESS {
		kind = apiv1.AppSpec_COMPANION // it runs a program of the node
	}
	role := &apiv1.RoleSpec{
		Image: container.GetImage(), Command: container.GetCommand(), Env: container.GetEnv(), WorkingDir: container.GetWorkingDir(), User: container.GetUser(),
		Network: container.GetNetwork(), Ports: container.GetPorts(), Health: proto.CloneOf(container.GetHealth()),
		Stop: &apiv1.StopPolicy{Grace: container.GetStopGrace(), Drain: durationpb.New(0), Signal: container.GetStopSignal()},
	}
	SetArgs(role, container.GetArgs())
	completeHealth(role.GetHealth())
	completeStop(role)
	c := &checker{}
	c.checkProgram(kind, role)
	if pids := container.GetPids(); pids != 0 {
		c.pids(pids)
	}
	c.checkPorts(role)
	c.checkEnv(role.GetEnv())
	c.checkHealth(role)
	c.checkStop(role.GetStop())
	if len(c.faults) > 0 {
		return c.faults
	}
	return nil
}
