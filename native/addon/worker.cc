// The session's thread. See worker.h.
#include "worker.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "../runtime/host.h"

namespace attune::addon {

namespace {

void stop_hook(void* worker) { static_cast<Worker*>(worker)->stop(); }

}  // namespace

Napi::Error error_of(Napi::Env env, const Status& status) {
  Napi::Error e = Napi::Error::New(env, status.message);
  e.Set("kind", Napi::String::New(env, fault_name(status.fault)));
  return e;
}

std::shared_ptr<Worker> Worker::start(Napi::Env env, Napi::Object handle, std::unique_ptr<Session> session) {
  std::shared_ptr<Worker> w(new Worker());
  w->env_ = env;
  w->handle_ = Napi::Weak(handle);
  w->device_ = session->device().name;
  w->threads_ = session->threads();
  w->session_ = std::move(session);
  w->measure();
  const napi_status made = napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "attune.session"), 0, 1,
                                                           nullptr, nullptr, nullptr, &Worker::settle, &w->reports_);
  if (made != napi_ok) throw error_of(env, Status::bad(Fault::state, "session: Node gave no thread-safe function"));
  napi_unref_threadsafe_function(env, w->reports_);
  // Hooks run last in, first out: this one before the thread-safe function's own.
  napi_add_env_cleanup_hook(env, stop_hook, w.get());
  w->thread_ = std::thread(&Worker::loop, w.get());
  return w;
}

Worker::~Worker() { stop(); }

Napi::Promise Worker::push(std::unique_ptr<Command> command) {
  command->worker = this;
  const Napi::Promise promise = command->deferred.Promise();
  if (pending_++ == 0) {
    napi_ref_threadsafe_function(env_, reports_);
    handle_.Ref();
  }
  {
    std::lock_guard<std::mutex> hold(mutex_);
    queue_.push_back(std::move(command));
  }
  wake_.notify_one();
  return promise;
}

void Worker::cancel(uint32_t token) {
  std::lock_guard<std::mutex> hold(mutex_);
  if (running_ != nullptr && running_->token == token) running_->cancel = true;
  for (auto& c : queue_) {
    if (c->token == token) c->cancel = true;
  }
}

Napi::Promise Worker::close(Napi::Env env) {
  closed_ = true;
  auto command = std::make_unique<Command>(env);
  command->worker = this;
  command->result = [](Napi::Env e) -> Napi::Value { return e.Undefined(); };
  const Napi::Promise promise = command->deferred.Promise();
  if (pending_++ == 0) {
    napi_ref_threadsafe_function(env_, reports_);
    handle_.Ref();
  }
  {
    std::lock_guard<std::mutex> hold(mutex_);
    farewell_ = std::move(command);
    stopping_ = true;
    if (running_ != nullptr) running_->cancel = true;
  }
  wake_.notify_one();
  return promise;
}

void Worker::stop() {
  if (reports_ == nullptr) return;
  closed_ = true;
  {
    std::lock_guard<std::mutex> hold(mutex_);
    stopping_ = true;
    if (running_ != nullptr) running_->cancel = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  napi_release_threadsafe_function(reports_, napi_tsfn_abort);
  reports_ = nullptr;
  napi_remove_env_cleanup_hook(env_, stop_hook, this);
}

void Worker::measure() {
  sizes_.arena = session_ ? session_->arena_bytes() : 0;
  sizes_.threads = session_ ? session_->thread_bytes() : 0;
  sizes_.derived = session_ ? session_->derived_bytes() : 0;
  sizes_.buffers = session_ ? session_->buffer_bytes() : 0;
  if (sizes_.device_total == 0 && session_) sizes_.device_total = session_->device_total();
  sizes_.device = session_ ? session_->device_bytes() : 0;
  if (session_) sizes_.fuses_head = session_->fuses_head();
}

void Worker::loop() {
  if (session_->device_total() == 0) yield_to_others();  // a GPU must not wait for it
  std::unique_ptr<Command> begun;  // a run that is waited for once the next one is queued behind it, so that the device does not wait for the host
  for (;;) {
    std::unique_ptr<Command> command;
    {
      std::unique_lock<std::mutex> hold(mutex_);
      if (!begun) wake_.wait(hold, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_ && !begun) break;
      if (!stopping_ && !queue_.empty()) {
        command = std::move(queue_.front());
        queue_.pop_front();
      }
      running_ = command.get();
    }
    if (begun && !(command && command->end)) conclude(std::move(begun));
    if (!command) continue;
    if (command->cancel) {
      command->status = Status::bad(Fault::cancelled, "cancelled before it began");
    } else {
      command->status = command->work(*session_, command->cancel);
    }
    {
      std::lock_guard<std::mutex> hold(mutex_);
      running_ = nullptr;
      if (stopping_ && command->status.fault == Fault::cancelled)
        command->status = Status::bad(Fault::state, "session: closed while this ran");
    }
    if (begun) conclude(std::move(begun));
    if (command->end && command->status.ok() && session_->queues()) {
      begun = std::move(command);
    } else {
      measure();
      report(std::move(command));
    }
  }
  session_.reset();
#if defined(__GLIBC__)
  malloc_trim(0);  // a service that trains now and then would keep what its arenas hold free: 150 MiB to 135 after 200 trainers
#endif
  measure();
  std::deque<std::unique_ptr<Command>> left;
  {
    std::lock_guard<std::mutex> hold(mutex_);
    left.swap(queue_);
    if (farewell_) left.push_back(std::move(farewell_));
  }
  for (auto& command : left) {
    if (command->work) command->status = Status::bad(Fault::state, "session: closed before this began");
    report(std::move(command));
  }
}

void Worker::conclude(std::unique_ptr<Command> begun) {
  begun->status = begun->end(*session_);
  measure();
  report(std::move(begun));
}

void Worker::report(std::unique_ptr<Command> command) {
  command->work = nullptr;  // what these hold is freed here, off the JavaScript thread
  command->end = nullptr;
  Command* raw = command.release();
  if (napi_call_threadsafe_function(reports_, raw, napi_tsfn_nonblocking) != napi_ok) delete raw;
}

void Worker::settle(napi_env raw_env, napi_value, void*, void* data) {
  std::unique_ptr<Command> command(static_cast<Command*>(data));
  if (raw_env == nullptr) return;  // the environment is going: nobody listens, and the worker may be gone
  const Napi::Env env(raw_env);
  const Napi::HandleScope scope(env);
  command->worker->finish(env, *command);
}

void Worker::finish(Napi::Env env, Command& command) {
  // The handle may be the last thing that keeps this worker alive: hold it to the end.
  const Napi::Object handle = handle_.Value();
  if (--pending_ == 0) {
    napi_unref_threadsafe_function(env_, reports_);
    handle_.Unref();
  }
  if (closed_ && pending_ == 0) stop();
  if (!command.status.ok()) {
    command.deferred.Reject(error_of(env, command.status).Value());
    return;
  }
  try {
    command.deferred.Resolve(command.result(env));
  } catch (const Napi::Error& e) {
    command.deferred.Reject(e.Value());
  }
  (void)handle;
}

}  // namespace attune::addon
