package zone

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
)

// reportInstance takes in what a master reports of an instance.
func (ms *masters) reportInstance(a *app, report *masterv1.InstanceReport) {
	if report.GetId() == "" {
		return
	}
	instance := a.instances[report.GetId()]
	before := instance.GetReport()
	if proto.Equal(before, report) {
		if leaving(report) {
			a.endpoints.Withdraw(report.GetId()) // Its master has not heard of the confirmation.
			ms.apps.touch(a)
		}
		return
	}
	if instance == nil {
		instance = &storev1.Instance{AppId: a.id.String()}
		a.instances[report.GetId()] = instance
		a.master.names = nil
	}
	if before.GetState() != report.GetState() {
		instance.Since = timestamppb.New(ms.now)
		ms.Emit(&apiv1.Event{
			Kind: "instance", App: a.record.GetName(), Instance: report.GetId(), Container: report.GetContainerId(),
			Node: a.nodeOf(report.GetContainerId()), From: instanceState(before.GetState()), To: report.GetState().String(),
			Message: because(report.GetId()+" is "+instanceWord(report.GetState()), report.GetReason()),
		})
	}
	if report.GetInService() && (!before.GetInService() || before.GetContainerId() != report.GetContainerId()) {
		instance.RegisteredAt = timestamppb.New(ms.now)
	}
	instance.Report = report
	ms.Save(kindInstance, instanceKey(a, report.GetId()), instance)
	if before.GetInService() && !report.GetInService() || leaving(report) {
		a.endpoints.Withdraw(report.GetId())
	}
	if report.GetInService() {
		a.endpoints.CancelWithdrawal(report.GetId())
	}
	ms.apps.touch(a)
}

// instanceGone forgets an instance that its master does not have any more.
func (ms *masters) instanceGone(a *app, name string) {
	instance := a.instances[name]
	if instance == nil {
		return
	}
	delete(a.instances, name)
	a.master.names = nil
	a.endpoints.Forget(name)
	ms.Forget(kindInstance, instanceKey(a, name))
	ms.Emit(&apiv1.Event{
		Kind: "instance", App: a.record.GetName(), Instance: name, Container: instance.GetReport().GetContainerId(),
		From: instanceState(instance.GetReport().GetState()), To: "GONE", Message: name + " is gone",
	})
	ms.apps.touch(a)
}

// leaving reports whether the master waits for an instance to be withdrawn.
func leaving(report *masterv1.InstanceReport) bool {
	return !report.GetInService() &&
		(report.GetState() == apiv1.Instance_DRAINING || report.GetState() == apiv1.Instance_STOPPING)
}

// forgetInstances forgets what an app's master reported: nothing of it is there any more.
func (ms *masters) forgetInstances(a *app) {
	for _, name := range id.SortedKeys(a.instances) {
		ms.Forget(kindInstance, instanceKey(a, name))
	}
	clear(a.instances)
}

func (ms *masters) load(stored Records) error {
	err := loadRecords(stored, kindMemo, func(record *storev1.Memo) error {
		if a := ms.apps.ofRecord(record.GetAppId()); a != nil {
			a.master.memo = record.GetMemo()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return loadRecords(stored, kindInstance, func(record *storev1.Instance) error {
		if a := ms.apps.ofRecord(record.GetAppId()); a != nil {
			a.instances[record.GetReport().GetId()] = record
		}
		return nil
	})
}

// instanceWord is a state behind "is".
func instanceWord(state apiv1.Instance_State) string {
	if state == apiv1.Instance_BACKOFF {
		return "in back-off"
	}
	return strings.ToLower(state.String())
}

func instanceState(state apiv1.Instance_State) string {
	if state == apiv1.Instance_STATE_UNSPECIFIED {
		return ""
	}
	return state.String()
}

func instanceKey(a *app, name string) string { return a.id.String() + "/" + name }

func instanceName(app, role string, number int) string {
	if role == "" {
		return fmt.Sprintf("%s-%d", app, number)
	}
	return fmt.Sprintf("%s-%s-%d", app, role, number)
}

func (a *app) roleOf(instance string) string { return a.instances[instance].GetReport().GetRole() }

// withContainer counts the instances of a role that have a container. It is zero for an app that does not exist.
func (a *app) withContainer(role string) int32 {
	if a == nil {
		return 0
	}
	return int32(a.withContainers()[role])
}

// withContainers counts the instances of each role that have a container.
func (a *app) withContainers() map[string]int {
	counts := map[string]int{}
	for _, instance := range a.instances {
		if report := instance.GetReport(); report.GetContainerId() != "" {
			counts[report.GetRole()]++
		}
	}
	return counts
}

// takeOutOfService takes every instance of an app out of service, whatever its master has reported.
func (ms *masters) takeOutOfService(a *app) {
	for _, name := range id.SortedKeys(a.instances) {
		instance := a.instances[name]
		if instance.GetReport().GetInService() {
			report := proto.CloneOf(instance.GetReport())
			report.InService = false
			instance.Report = report
			ms.Save(kindInstance, instanceKey(a, name), instance)
		}
	}
}

// instanceNames are the names of an app's instances in the order in which people count.
func (a *app) instanceNames() []string {
	if a.master.names == nil || len(a.master.names) != len(a.instances) {
		a.master.names = id.SortedKeys(a.instances)
	}
	return a.master.names
}
