;; A second thread ends the program with code 7 while the first waits for something that never comes.
(module
  (import "env" "memory" (memory 1 1 shared))
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (export "memory" (memory 0))
  (func (export "wasi_thread_start") (param i32 i32) (call $proc_exit (i32.const 7)))
  (func (export "_start")
    (drop (call $spawn (i32.const 0)))
    (loop $for_ever
      (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 100000000)))
      (br $for_ever))))
