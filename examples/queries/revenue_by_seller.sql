-- What does each seller take in, and with how many orders? Revenue (quantity times price) and profit of paid orders only,
-- whatever their state is now. An item whose product is gone is of `(unknown)`; one whose order is gone is left out.
SELECT f."SellerID" AS seller_id,
       coalesce(s."SellerName", '(unknown)') AS seller,
       count(DISTINCT f."OrderID") AS orders,
       count(DISTINCT f."OrderID") FILTER (WHERE f."IsPaid") AS paid_orders,
       coalesce(sum(f."Revenue") FILTER (WHERE f."IsPaid"), 0) AS revenue,
       coalesce(sum(f."Profit") FILTER (WHERE f."IsPaid"), 0) AS profit
FROM gold."FactSales" f
LEFT JOIN gold."DimSeller" s ON s."SellerID" = f."SellerID"
WHERE f."OrderDateKey" IS NOT NULL
GROUP BY f."SellerID", s."SellerName"
ORDER BY revenue DESC, seller_id;
