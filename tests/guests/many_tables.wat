;; Grows eight tables as far as that goes, and ends with 0 if they hold no more together than the limit of 8,000.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (table $t0 0 funcref) (table $t1 0 funcref) (table $t2 0 funcref) (table $t3 0 funcref)
  (table $t4 0 funcref) (table $t5 0 funcref) (table $t6 0 funcref) (table $t7 0 funcref)
  (func (export "_start")
    (loop $more
      (br_if $more (i32.ne (table.grow $t0 (ref.null func) (i32.const 100)) (i32.const -1)))
      (br_if $more (i32.ne (table.grow $t1 (ref.null func) (i32.const 100)) (i32.const -1)))
      (br_if $more (i32.ne (table.grow $t2 (ref.null func) (i32.const 100)) (i32.const -1)))
      (br_if $more (i32.ne (table.grow $t3 (ref.null func) (i32.const 100)) (i32.const -1)))
      (br_if $more (i32.ne (table.grow $t4 (ref.null func) (i32.const 100)) (i32.const -1)))
      (br_if $more (i32.ne (table.grow $t5 (ref.null func) (i32.const 100)) (i32.const -1)))
      (br_if $more (i32.ne (table.grow $t6 (ref.null func) (i32.const 100)) (i32.const -1)))
      (br_if $more (i32.ne (table.grow $t7 (ref.null func) (i32.const 100)) (i32.const -1))))
    (call $proc_exit (i32.ne (i32.const 8000)
      (i32.add (i32.add (i32.add (table.size $t0) (table.size $t1)) (i32.add (table.size $t2) (table.size $t3)))
               (i32.add (i32.add (table.size $t4) (table.size $t5)) (i32.add (table.size $t6) (table.size $t7))))))))
