package driver

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy/plan"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// sent owns what was last sent to the ResourceManager, so that only changes are sent.
type sent struct {
	out *appmaster.Outbox

	instances  map[string]*masterv1.InstanceReport
	lastStatus *apiv1.MasterStatus
	lastNote   *masterv1.VersionNote
	lastMemo   []byte
	// reached is the generation that was reported as observed.
	reached int64
	// traffic is true if Traffic events were requested.
	traffic bool
}

// instance reports an instance of a role.
func (s *sent) instance(r *role, instance plan.Instance) {
	report := instanceReport(r, instance)
	if !proto.Equal(report, s.instances[instance.Name]) {
		s.instances[instance.Name] = report
		s.out.ReportInstance(report)
	}
}

// repeatInstance has an instance reported again, so that its withdrawal is confirmed again.
func (s *sent) repeatInstance(name string) { delete(s.instances, name) }

// forgetInstance drops the report of an instance that is gone.
func (s *sent) forgetInstance(name string) {
	delete(s.instances, name)
	s.out.ForgetInstance(name)
}

func (s *sent) status(status *apiv1.MasterStatus) {
	if !proto.Equal(status, s.lastStatus) {
		s.lastStatus = status
		s.out.ReportStatus(status)
	}
}

// note sends a note on a version for the history.
func (s *sent) note(note *masterv1.VersionNote) {
	if !proto.Equal(note, s.lastNote) {
		s.lastNote = note
		s.out.NoteVersion(note)
	}
}

func (s *sent) memo(memo []byte) {
	if !bytes.Equal(memo, s.lastMemo) {
		s.lastMemo = memo
		s.out.SaveMemo(memo)
	}
}

// generation reports the generation of the desired state that was decided on.
func (s *sent) generation(generation int64) {
	if s.reached != generation {
		s.reached = generation
		s.out.ReportGeneration(generation)
	}
}

// wantTraffic requests Traffic events, or no more of them.
func (s *sent) wantTraffic(wants bool) {
	if s.traffic != wants {
		s.traffic = wants
		s.out.WantTraffic(wants)
	}
}

func (s *sent) answer(answer *masterv1.CommandAnswer) { s.out.Answer(answer) }

var instanceStates = [...]apiv1.Instance_State{
	plan.InstancePending:     apiv1.Instance_PENDING,
	plan.InstanceDownloading: apiv1.Instance_DOWNLOADING,
	plan.InstanceLoading:     apiv1.Instance_LOADING,
	plan.InstanceStarting:    apiv1.Instance_STARTING,
	plan.InstanceRunning:     apiv1.Instance_RUNNING,
	plan.InstanceUnhealthy:   apiv1.Instance_UNHEALTHY,
	plan.InstanceDraining:    apiv1.Instance_DRAINING,
	plan.InstanceStopping:    apiv1.Instance_STOPPING,
	plan.InstanceBackoff:     apiv1.Instance_BACKOFF,
	plan.InstanceUnreachable: apiv1.Instance_UNREACHABLE,
}

// instanceReport is the report of an instance of a role.
func instanceReport(r *role, instance plan.Instance) *masterv1.InstanceReport {
	report := &masterv1.InstanceReport{
		Id: instance.Name, Role: r.name, Version: instance.Version, State: instanceStates[instance.State],
		InService: instance.InService, Weight: int32(instance.Weight), Restarts: int32(instance.Restarts), Reason: instance.Reason,
		Failures: int32(instance.Failures),
	}
	if !instance.Container.IsZero() {
		report.ContainerId = instance.Container.String()
	}
	if !instance.NextAttempt.IsZero() {
		report.NextAttemptAt = timestamppb.New(instance.NextAttempt)
	}
	switch report.GetState() {
	case apiv1.Instance_STARTING:
		report.CountsAfter = durationpb.New(r.minHealthy)
	case apiv1.Instance_DRAINING:
		if report.GetReason() == "" && r.drain > 0 {
			report.Reason = fmt.Sprintf("requests in flight may take up to %s", r.drain)
		}
	}
	return report
}
